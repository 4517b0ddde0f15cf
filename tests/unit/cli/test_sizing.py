"""`tallystream sizing`: the figures grow with the fleet, and wrong numbers are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from typer.testing import CliRunner

from tallystream.cli import build
from tallystream.sizing import AgentLoad, MachinePrices, size

fleets = st.builds(
    AgentLoad,
    st.integers(1, 200_000),
    st.floats(0.01, 120),
    st.floats(0.1, 100),
    st.floats(0.1, 24),
    st.integers(1, 5),
)


@examples(300)
@given(fleets, st.integers(2, 10))
def test_more_agents_need_no_less_of_anything(fleet: AgentLoad, times: int) -> None:
    few, many = size(fleet), size(replace(fleet, agents=fleet.agents * times))
    for figure in ("events_per_second", "gateways", "workers", "partitions", "kafka_disk_bytes", "memory_bytes"):
        assert getattr(many, figure) >= getattr(few, figure)
    assert few.gateways * 1.0 >= few.gateway_cores
    assert few.workers * 1.0 >= few.worker_cores
    assert few.partitions >= few.workers


def test_dollars_follow_the_prices() -> None:
    fleet = AgentLoad(2_000)
    free = size(fleet, MachinePrices(Decimal(0), Decimal(0)))
    assert free.usd_per_million_responses == 0
    assert (
        size(fleet, MachinePrices(Decimal("0.08"))).usd_per_million_responses
        > size(fleet).usd_per_million_responses
        > 0
    )


def test_the_command_prints_what_the_model_says() -> None:
    said = CliRunner().invoke(build(), ["sizing", "--agents", "2000", "--json"])
    document = json.loads(said.output)
    assert document["events_per_second"] == 200
    assert document["workers"] == size(AgentLoad(2_000)).workers
    people = CliRunner().invoke(build(), ["sizing", "--agents", "2000"])
    assert "200 a second" in people.output


@pytest.mark.parametrize(
    "args", [("--agents", "0"), ("--agents", "5", "--core-hour", "cheap"), ("--agents", "5", "--hours", "-1")]
)
def test_numbers_that_do_not_fit_are_refused(args: tuple[str, ...]) -> None:
    said = CliRunner().invoke(build(), ["sizing", *args])
    assert said.exit_code != 0
    assert "does not fit" in str(said.exception)
