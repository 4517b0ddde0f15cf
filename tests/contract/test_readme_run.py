"""The run in the README must equal what its command gives now, because a fleet depends only on its seed."""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tallystream.simulator import FleetConfig, Truth
from tallystream.simulator.fleet import Fleet

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
AGENTS, REQUESTS = 12, 400
"""The fleet of `tallystream demo` by default."""
RECORDED = re.search(r"<!-- recorded: tallystream demo --once --seed (\d+) -->\n(.*?)\n(?=\S)", README, re.DOTALL)
SESSION = re.compile(
    r"^ +[0-9a-f]{8}…[0-9a-f]{4} +(\S+) +(\d+) +([\d,]+) +([\d,]+) +([\d,]+) +\$([\d.]+)$", re.MULTILINE
)


@pytest.fixture(scope="module")
def truth() -> Truth:
    """The fleet's truth, as if every request had been answered with 200."""
    assert RECORDED, "the README shows a run"
    config = FleetConfig(
        agents=AGENTS, requests=REQUESTS, seed=int(RECORDED[1]), start_ns=1_795_219_200_000_000_000,
        duplicates=0.1, late=0.05,
    )  # fmt: skip
    truth = Truth(config)
    for request in Fleet(config):
        truth.begin(request)
        truth.end(request, 200)
    return truth


def test_readme_run_has_the_fleets_totals(truth: Truth) -> None:
    assert RECORDED
    used = truth.document()
    totals = used["acknowledged"]["totals"]
    said = (
        f"{totals['requests']} requests, {totals['total_tokens']:,} tokens, ${totals['cost_usd']}"
        f" ({used['sent']['copies']} duplicates sent, none counted)"
    )
    assert said in RECORDED[2]


def test_readme_run_has_the_fleets_sessions(truth: Truth) -> None:
    assert RECORDED
    sums: dict[tuple[str, ...], dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    for row in truth.document()["acknowledged"]["rows"]:
        one = sums[row["model"], row["session_id"], str(row["service_tier"]), str(row["attribution"])]
        for name in ("requests", "input_uncached", "cache_read", "output"):
            one[name] += row[name]
        one["cost"] = one["cost"] + Decimal(row["cost_usd"] or 0)
    known = {
        (model, one["requests"], one["input_uncached"], one["cache_read"], one["output"], f"{one['cost']:.4f}")
        for (model, *_), one in sums.items()
    }
    shown = [
        (model, *(int(number.replace(",", "")) for number in numbers), cost)
        for model, *numbers, cost in SESSION.findall(RECORDED[2])
    ]
    assert len(shown) == 8
    assert set(shown) <= known
