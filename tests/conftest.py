"""Fixtures for all tests: one Kafka broker for each test run, and unique names for each test."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings
from tests.support.longest_first import longest_first
from tests.support.postgres import PostgresServer, postgres_server

from tallystream.streams.kafka.settings import KafkaSettings

# The duration of an example depends on the machine.
settings.register_profile("tallystream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("tallystream"), max_examples=20)
# The same examples in every run, so that a verdict on a change depends on the change. `make properties` looks further.
settings.register_profile("same", settings.get_profile("tallystream"), derandomize=True)
settings.load_profile(os.environ.get("TALLYSTREAM_TEST_PROFILE", "tallystream"))

# A broker of a test ends within minutes, so Java's second compiler, which optimises for hours of work, costs more than
# it saves: with the first one alone a broker takes 70% of the CPU time. All processes of a test inherit this.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
START_PROCESSES = ("chaos", "e2e", "integration")
"""The folders of tests that start processes and mostly wait for them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` runs without measuring coverage, and put long files first."""
    of_one_name = Counter(item.nodeid for item in items)
    for item in items:
        if _is_waiting(item.path) or item.get_closest_marker("thorough") or _is_property(item):
            if of_one_name[item.nodeid] == 1:
                item.add_marker("unmeasured")
            elif _is_waiting(item.path):
                raise pytest.UsageError(f"xdist would run only one of the tests with the name {item.nodeid}")
            # Schemathesis gives all tests of a document one name, and the measured run starts each of them.
    longest_first(items, _is_waiting)


def _is_property(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)


def _is_waiting(file: Path) -> bool:
    return file.relative_to(HERE).parts[0] in START_PROCESSES


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """Provide the test run's broker: the one of TALLYSTREAM_TEST_KAFKA, or an embedded one that is started once."""
    if bootstrap := os.environ.get("TALLYSTREAM_TEST_KAFKA"):
        yield KafkaSettings(bootstrap)
        return
    from tests.support.shared_broker import shared_broker

    here = tmp_path_factory.getbasetemp()
    with shared_broker(here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) as bootstrap:
        yield KafkaSettings(bootstrap)


@pytest.fixture
def prefix() -> str:
    """Provide a unique topic prefix."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give the test run's PostgreSQL server; without one on this machine the test is skipped."""
    with postgres_server() as server:
        yield server
