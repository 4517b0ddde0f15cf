"""The GenAI agent on the engine: despite crashes, torn groups and late spans, each call is in `usage` once."""

from __future__ import annotations

import asyncio
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.support.examples import examples
from tests.support.otlp_spans import chat, sightings
from tests.unit.clients.test_genai_join import SEEDS, Fleet, fleets

from tallystream.agents.genai_calls.agent import CallConfig, GenaiCalls
from tallystream.agents.genai_calls.metrics import CallMetrics
from tallystream.schemas import calls
from tallystream.schemas.clients.genai import Sighting, SightingPack
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.usage import UsageBatch
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost, MemoryWorker
from tallystream.streams.runtime.memory.host import WorkerCrashedError

TOPICS = Topics("unit", 2)
CONFIG = CallConfig(hold_ms=15_000, quiet_ms=600_000)
HOME = 0


class Deployment:
    """One partition of the topic calls, and the workers that have owned it; times are the broker's clock."""

    def __init__(self, random: Random | None = None) -> None:
        self.broker = MemoryBroker()
        self.random = random or Random(0)
        for spec in TOPICS.all():
            self.broker.create(spec.name, spec.partitions)
        self.worker = self.new_worker(None)

    def new_worker(self, store: MemoryWorker | None) -> MemoryWorker:
        """Return a worker with a former one's disk, or an empty one."""
        fold = GenaiCalls(TOPICS, CONFIG, CallMetrics(CollectorRegistry()), self.broker.clock)
        host = MemoryHost(self.broker, f"w{self.random.random()}", batch_bytes=6_000)
        return MemoryWorker(
            host,
            fold,
            source=TOPICS.calls.name,
            changelog=TOPICS.calls_changelog.name,
            store=None if store is None else store.store,
        )

    def send(self, seen: list[Sighting]) -> None:
        """Append a request's sightings."""
        pack = SightingPack({"team": "payments"}, seen)
        rows = list(calls.messages(pack, "genai-1", lambda user: user))
        self.broker.append(TOPICS.calls.name, HOME, rows)

    async def go_on(self) -> None:
        """Fold the available messages and commit them."""
        self.worker.host.hold = False
        self.worker.host.land_all()
        await self.worker.deliver(HOME)
        await self.worker.settle()

    async def tick(self, seconds: float) -> None:
        """Let time pass, and let the worker react to it."""
        self.broker.clock.seconds += seconds
        await self.go_on()
        await self.worker.engine.watch()
        await self.go_on()

    async def crash(self) -> None:
        """Kill the worker with batches in flight, some of which may land before another worker takes over."""
        former = self.worker
        former.crash()
        for _ in range(self.random.randint(0, 4)):
            former.host.land()
        self.worker = self.new_worker(self.random.choice([former, None]))
        await self.worker.assign([HOME])

    def usage(self) -> dict[str, tuple[bytes, tuple[int, int]]]:
        """Return key and tokens of each event of the topic usage; the same event is the same every time."""
        found: dict[str, tuple[bytes, tuple[int, int]]] = {}
        for record in self.broker.records(TOPICS.usage.name):
            batch = UsageBatch.model_validate_json(record.value or b"")
            assert record.key is not None
            assert dict(record.headers)["schema"] == b"usage-batch/1"
            for event in batch.events:
                whole = event.input_uncached + event.cache_read + event.cache_write_5m + event.cache_write_1h
                told = (record.key, (whole, event.output))
                assert found.setdefault(event.event_id, told) == told
        return found


@examples(60, deadline=None)
@given(fleets(sums=False), SEEDS)
def test_each_call_is_in_usage_once_despite_crashes(fleet: Fleet, random: Random) -> None:
    """Groups are torn, zombies write late and disks are lost; the sum over distinct events must be exact."""

    async def run() -> None:
        deployment = Deployment(random)
        await deployment.worker.assign([HOME])
        spans = fleet.spans + random.sample(fleet.spans, k=random.randint(0, len(fleet.spans)))
        random.shuffle(spans)
        while spans:
            size = random.randint(1, 4)
            deployment.send(sightings(spans[:size]))
            del spans[:size]
            deployment.broker.clock.seconds += random.choice([0.01, 1, 10, 20])
            step = random.random()
            try:
                if step < 0.3:
                    deployment.worker.host.hold = True
                    await deployment.worker.deliver(HOME, random.randint(1, 5))
                    await deployment.worker.settle()
                elif step < 0.5:
                    deployment.worker.host.land()
                    await deployment.worker.settle()
                elif step < 0.7:
                    await deployment.go_on()
                elif step < 0.8:
                    await deployment.tick(0)
                else:
                    await deployment.crash()
            except WorkerCrashedError:
                await deployment.crash()
        for seconds in (1, 16, 16, 601, 1):
            try:
                await deployment.tick(seconds)
            except WorkerCrashedError:
                await deployment.crash()
                await deployment.go_on()
        assert sorted(tokens for _, tokens in deployment.usage().values()) == fleet.truth
        deployment.worker.crash()

    asyncio.run(run())


async def test_held_calls_keep_the_group_behind_until_a_tick_releases_them() -> None:
    """The group's position, which `wait` and the lag use, stays before a call that is held."""
    deployment = Deployment()
    worker = deployment.worker
    await worker.assign([HOME])
    deployment.send(sightings([chat("c")]))
    await deployment.go_on()
    position = next(iter(worker.engine.applied().values()))
    assert (position, deployment.usage()) == (0, {})
    await deployment.tick(14)
    assert not deployment.usage()
    await deployment.tick(2)
    ((key, tokens),) = deployment.usage().values()
    assert (key.split(b"|")[0], tokens) == (b"genai-1", (100, 10))
    assert list(worker.engine.applied().values()) == [2], "the message, and the tick"
    await deployment.tick(3600)
    assert deployment.broker.end(next(iter(worker.engine.applied()))) <= 3, "nothing is held, so nothing ticks"
    worker.crash()


async def test_invalid_message_becomes_a_dead_letter_without_its_values() -> None:
    """Messages on the topic are not trusted, and the valid ones still count."""
    deployment = Deployment()
    await deployment.worker.assign([HOME])
    bad = orjson.dumps({"connection_id": "c", "sightings": [{"trace_id": "canary", "input": "many"}]})
    deployment.broker.append(TOPICS.calls.name, HOME, [(calls.KEY, bad), (calls.KEY, b"\xff")])
    deployment.send(sightings([chat("c")]))
    await deployment.go_on()
    await deployment.tick(16)
    letters = deployment.broker.records(TOPICS.deadletters.name)
    assert [DeadLetter.model_validate_json(letter.value or b"").reason for letter in letters] == ["invalid_message"] * 2
    assert b"canary" not in b"".join(letter.value or b"" for letter in letters)
    assert len(deployment.usage()) == 1
    deployment.worker.crash()


@given(st.text(max_size=300), st.sampled_from(["user", "team"]))
def test_user_names_are_replaced_before_anything_is_written(name: str, field: str) -> None:
    """A user's name never reaches the topic, whether it is on the resource or the span."""
    seen = Sighting("0" * 32, "1" * 16, user=name)
    pack = SightingPack({field: name}, [seen])
    wire = calls.to_wire(pack, lambda _: "u_hash")
    assert wire["sightings"][0]["user"] == "u_hash"
    assert wire["attribution"][field] == ("u_hash" if field == "user" else name)


async def conflict(between: float, order: tuple[int, int]) -> tuple[int, DeadLetter]:
    """Send a span twice with different counts; return the tokens that are counted, and the letter."""
    deployment = Deployment()
    await deployment.worker.assign([HOME])
    for output in order:
        deployment.send(sightings([chat("c", (100, output))]))
        await deployment.tick(between)
    await deployment.tick(16)
    ((_, (whole, output)),) = deployment.usage().values()
    (letter,) = deployment.broker.records(TOPICS.deadletters.name)
    return whole + output, DeadLetter.model_validate_json(letter.value or b"")


@pytest.mark.parametrize("order", [(1, 500), (500, 1)])
async def test_larger_of_two_records_of_a_held_span_counts(order: tuple[int, int]) -> None:
    tokens, letter = await conflict(1, order)
    assert tokens == 600
    assert letter.reason is Reason.CONFLICTING_COUNTS
    assert (letter.record["counted"]["output"], letter.record["other"]["output"]) == (500, 1)


async def test_conflicting_record_of_a_counted_span_becomes_a_dead_letter() -> None:
    tokens, letter = await conflict(17, (1, 500))
    assert tokens == 101
    assert (letter.record["counted"]["output"], letter.record["other"]["output"]) == (1, 500)
