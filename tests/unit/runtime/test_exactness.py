"""The runtime is exact in any interleaving, and the test fails when a safeguard is removed.

TALLYSTREAM_EXACTNESS_EXAMPLES=20000 makes a long run (`make test` runs a few dozen examples).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest
from aiokafka.structs import TopicPartition
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.unit.runtime.machine import Exactness

from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import State
from tallystream.streams.runtime import Engine, Group, InputRecord, Partition
from tallystream.streams.runtime.changelog import HIDDEN, POSITION, Row
from tallystream.streams.runtime.host import Packed, Reader
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost, MemoryRecord
from tallystream.streams.runtime.memory.host import MemoryReader
from tallystream.streams.runtime.recovery import RecoveredState
from tallystream.streams.runtime.standby import Standby

EXAMPLES = int(os.environ.get("TALLYSTREAM_EXACTNESS_EXAMPLES", "60"))
STEPS = 40
PLANTED_EXAMPLES = 300
"""Most planted faults are found within a few examples; the seed is fixed, so that the result does not vary."""
QUIET = tuple(HealthCheck)


def test_readers_see_the_result_of_a_sequential_model() -> None:
    run_state_machine_as_test(
        Exactness,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=QUIET),
    )


# -- removed safeguards


class AnyOffsetWillDo(MemoryHost):
    """Does not check where changelog rows land."""

    async def write(self, packs: Sequence[Packed], expect: int | None = None) -> int:
        return await super().write(packs)


class NoContiguity(Exactness):
    host = AnyOffsetWillDo


class GapsAreFolded(Engine):
    """Does not notice missing records before a batch."""

    async def accept(self, p: int, records: Sequence[InputRecord]) -> None:
        partition = self.partition(p)
        if partition is not None and records[0].offset > partition.expected:
            partition.expected = records[0].offset
        await super().accept(p, records)


class NoGapCheck(Exactness):
    engine = GapsAreFolded


class Versionless(SessionCost):
    """A state without a record of which messages it includes."""

    def _state(self, *args: Any) -> State:
        state = super()._state(*args)
        state.version = -1
        return state


class NoVersions(Exactness):
    fold = Versionless


class ChangelogFirst(MemoryHost):
    """Writes public rows after the changelog's acknowledgement instead of before."""

    held: Sequence[Packed] = ()

    async def write(self, packs: Sequence[Packed], expect: int | None = None) -> int:
        if expect is None:
            self.held = packs
            return -1
        last = await super().write(packs, expect)
        await super().write(self.held)
        return last


class PublicLast(Exactness):
    host = ChangelogFirst


class NoLateWriteRepair(Exactness):
    mends_late_writes = False


class OpensAhead(MemoryHost):
    """Batches begin with the position after the group instead of the one before it."""

    def pack(self, topic: str, partition: int, rows: Sequence[Row], **options: Any) -> Packed:
        options.pop("opening", None)
        return (
            super().pack(topic, partition, [(POSITION, options["closing"][-1][1]), *rows], **options)
            if (options.get("closing"))
            else super().pack(topic, partition, rows, **options)
        )


class PositionAhead(Exactness):
    host = OpensAhead


class KeepsMemory(Engine):
    """Keeps the memory of a revoked partition and continues with it when the partition returns."""

    def revoke_all(self) -> None:
        return


class NothingDropped(Exactness):
    engine = KeepsMemory


class Forgetful(SessionCost):
    """Does not remember ids of events."""

    def _state(self, *args: Any) -> State:
        state = super()._state(*args)
        state.ids.seen = {}
        return state


class NoDedupe(Exactness):
    fold = Forgetful


class Torn(SessionCost):
    """Writes only half of a group's rows to the changelog."""

    def group(self, partition: Partition, states: Mapping[bytes, Any], version: int) -> Group:
        group = super().group(partition, states, version)
        return Group(group.rows[: (len(group.rows) + 1) // 2], group.public)


class HalfAGroup(Exactness):
    fold = Torn


class Unaware(Standby):
    """Goes on copying a partition that has been assigned to its own worker."""

    def _is_current(self, assignment: int) -> bool:
        return True


class CopiesOn(Exactness):
    standby = Unaware


class Overlooking(Standby):
    """Does not note which of the copied keys have to be written again."""

    async def follow(self, reader: Reader, tails: Reader) -> None:
        await super().follow(reader, tails)
        store = self._engine.store
        for p in range(self._partitions):
            if store.read(p, HIDDEN) is not None:
                store.write(p, [(HIDDEN, None)], store.changelog_offset(p))


class NoHiddenKeys(Exactness):
    standby = Overlooking


EVERY_HOUR = [(1, 0, 5), (2, 1, 6), (3, 2, 7), (4, 3, 8)]


def a_zombie_stores(machine: Exactness) -> None:
    """A paused worker's group lands after its successor's; it continues, and later owns the partition again."""
    machine.give_all_to("a")
    machine.produce([(0, EVERY_HOUR)])
    machine.fold_some(0, 0, 1)
    machine.seats["a"].paused = True
    machine.produce([(0, [(5, 0, 9)])])
    machine.produce([(2, [(6, 0, 9)])])
    machine.give_all_to("b")
    machine._fold_all(machine.group.members["b"])
    if "a" in machine.group.members:
        machine.flow(machine.group.members["a"])
    machine.seats["a"].paused = False
    machine.produce([(4, [(7, 0, 9)])])
    machine.give_all_to("c")
    machine._fold_all(machine.group.members["c"])
    machine.produce([(2, [(8, 0, 1)])])
    machine.give_all_to("a")
    machine._fold_all(machine.group.members["a"])
    machine.produce([(0, [(9, 0, 1)])])
    machine.come_to_rest(0, compacted=True)


def a_late_public_row(machine: Exactness) -> None:
    """A paused worker's public rows land after its successor's newer row of the same key."""
    machine.give_all_to("a")
    machine.produce([(0, EVERY_HOUR)])
    machine.fold_some(0, 0, 1)
    machine.seats["a"].paused = True
    machine.produce([(0, [(5, 0, 9)])])
    machine.give_all_to("b")
    machine._fold_all(machine.group.members["b"])
    machine._land_public(machine.group.members["a"])
    machine.group.members["a"].host.in_flight.clear()
    machine.end("a")
    machine.come_to_rest(0, compacted=True)


def a_lost_batch(machine: Exactness) -> None:
    """A record does not reach the engine, but the next one does."""
    machine.give_all_to("a")
    machine.produce([(0, [(1, 0, 5)]), (2, [(2, 0, 6)])])
    machine.lose_on_the_way(0, 0, 1)
    machine.fold_some(0, 0, 1)
    machine.come_to_rest(0, compacted=False)


def a_torn_group(machine: Exactness) -> None:
    """A worker dies when one of its group's changelog batches has landed; another one starts on an empty disk."""
    machine.give_all_to("a")
    machine.produce([(session, EVERY_HOUR) for session in (0, 2, 4)])
    machine.tear(0, 8, 1, 2, "lost", 0)
    machine.produce([(session, [(9, 0, 1), (10, 3, 1)]) for session in (0, 2, 4)])
    machine.come_to_rest(0, compacted=False)


def _late_changelog_row(machine: Exactness) -> None:
    """Let a paused worker's changelog rows land after those of its successor, b."""
    machine.give_all_to("a")
    machine.produce([(0, EVERY_HOUR)])
    machine._begin_group(machine.group.members["a"], 1)
    machine.seats["a"].paused = True
    machine.produce([(0, [(5, 0, 9)])])
    machine.give_all_to("b")
    machine._fold_all(machine.group.members["b"])
    machine._land_changelog(machine.group.members["a"].host, 9)


def a_copied_late_row(machine: Exactness) -> None:
    """A paused worker's changelog rows land after its successor's; a standby copies them, takes over and loses its
    disk after a compaction.
    """
    _late_changelog_row(machine)
    machine.start("c")
    machine.run(machine.group.rebalance({"b": {0, 1}}))
    machine.copy_others(1, landing=False, turns=0, choice=None)
    machine.end("b")
    machine.produce([(2, [(6, 0, 9)])])
    machine.come_to_rest(0, compacted=True)
    machine.end("c")
    machine.restart(2, "lost", 0)
    machine.produce([(0, [(7, 0, 1)])])
    machine.come_to_rest(0, compacted=False)


class Careless(Engine):
    """Does not keep on disk which keys have to be written again."""

    def _install(self, recovered: RecoveredState) -> None:
        super()._install(recovered)
        p = recovered.number
        self.store.write(p, [(HIDDEN, None)], self.store.changelog_offset(p))


class NothingToRewrite(Exactness):
    engine = Careless


def a_late_row_and_a_crash(machine: Exactness) -> None:
    """The worker that has read a late changelog row dies before it has written the newer one again."""
    _late_changelog_row(machine)
    machine.end("b")
    machine.give_all_to("c")
    machine.group.members["c"].host.in_flight.clear()
    machine.end("c")
    machine.restart(2, "kept", 0)
    machine.produce([(2, [(6, 0, 9)])])
    machine.come_to_rest(0, compacted=True)
    machine.end("c")
    machine.restart(2, "lost", 0)
    machine.produce([(0, [(7, 0, 1)])])
    machine.come_to_rest(0, compacted=False)


class GatedReader(MemoryReader):
    """Returns records only once `gate` is open."""

    def __init__(self, broker: MemoryBroker, gate: asyncio.Event) -> None:
        super().__init__(broker, None)
        self.gate = gate

    async def poll(
        self, partitions: Collection[TopicPartition], max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[MemoryRecord]]:
        got = await super().poll(partitions, max_records)
        await self.gate.wait()
        return got


def an_assignment_during_a_copy(machine: Exactness) -> None:
    """What a standby has just read arrives when its worker already owns the partition, and has written to it."""
    machine.give_all_to("a")
    machine.produce([(0, EVERY_HOUR)])
    machine._fold_all(machine.group.members["a"])
    machine.start("b")
    machine.run(machine.group.rebalance({"a": {0, 1}}))
    machine.produce([(0, [(5, 0, 9)])])
    worker, gate = machine.group.members["b"], asyncio.Event()
    reader, tails = GatedReader(machine.broker, gate), MemoryReader(machine.broker, 1)
    copied = machine.loop.create_task(machine.standbys["b"].follow(reader, tails))
    machine.run(worker.settle())
    machine.give_all_to("b")
    machine._fold_all(worker)
    gate.set()
    machine.loop.run_until_complete(copied)
    machine.produce([(0, [(6, 0, 9)])])
    machine._fold_all(worker)
    assert worker.alive, worker.host.crashed
    machine.come_to_rest(0, compacted=False)


def told(machine: type[Exactness], story: Callable[[Exactness], None]) -> None:
    """Run a scenario on the machine and check the invariants."""
    made = machine()
    try:
        made.begin()
        story(made)
        made.every_row_is_true_at_its_version()
    finally:
        made.teardown()


STORIES = [
    (NoContiguity, a_zombie_stores),
    (NoLateWriteRepair, a_late_public_row),
    (NoGapCheck, a_lost_batch),
    (PositionAhead, a_torn_group),
    (NoHiddenKeys, a_copied_late_row),
    (NothingToRewrite, a_late_row_and_a_crash),
    (CopiesOn, an_assignment_during_a_copy),
]


@pytest.mark.parametrize(("machine", "story"), STORIES, ids=lambda value: value.__name__)
def test_handwritten_interleaving_is_exact(machine: type[Exactness], story: Callable[[Exactness], None]) -> None:
    told(Exactness, story)
    with pytest.raises(AssertionError):
        told(machine, story)


PLANTED = [NoVersions, PublicLast, NothingDropped, NoDedupe, HalfAGroup]


@pytest.mark.parametrize("machine", PLANTED, ids=lambda machine: machine.__name__)
def test_removing_a_safeguard_is_detected(machine: type[Exactness]) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=PLANTED_EXAMPLES, stateful_step_count=STEPS, deadline=None, derandomize=True,
                suppress_health_check=QUIET, phases=[Phase.generate], database=None, report_multiple_bugs=False,
            ),
        )  # fmt: skip
