"""Leader election by consumer group: the leader is the member that owns the single partition of the control topic.

The coordinator assigns the partition to exactly one member, and to another one when the owner leaves or misses
heartbeats for `session_timeout`. A process that was suspended does not know that it has been replaced, so before every
write it asks the coordinator (`confirm`): an offset commit is refused once the member or its generation is not current.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from typing_extensions import override

from tallystream.streams.kafka.consumer import new_member
from tallystream.streams.kafka.lifecycle import cancel, close, start
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.task_watch import check_tasks
from tallystream.streams.service.clock import boottime

log = structlog.get_logger()


class Election:
    """A member of the group, as an async context manager.

    `term` numbers the current ownership, None while we do not own the partition. It changes with every rebalance, so
    work can detect that the term in which it began is over.
    """

    def __init__(self, kafka: KafkaSettings, group: str, topic: str, session_timeout: float) -> None:
        self._kafka = kafka
        self._group = group
        self._partition = TopicPartition(topic, 0)
        self.session_timeout = session_timeout
        """Seconds."""
        self._term = 0
        self._leading = False
        self._changed = asyncio.Event()
        self.joined = False
        """Whether we have received an assignment at least once."""
        self.polled_at = boottime()
        """When the member's loop last ran; it stops advancing only in a stuck process."""

    async def __aenter__(self) -> Self:
        # The assignor keeps its state in its class, so each member gets its own class to allow two in one process. It
        # is sticky, because a joining standby must not take over from the leader.
        assignor = type("LeaderAssignor", (StickyPartitionAssignor,), {"member_assignment": None})
        self._consumer = new_member(self._kafka, self._group, self.session_timeout, assignor)
        self._consumer.subscribe([self._partition.topic], listener=_Listener(self))
        await start(self._consumer)
        self._loop = asyncio.create_task(self._stay())
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel(self._loop)
        # Leave the group at once, so that a standby need not wait for the session timeout.
        await close(self._consumer, within=None)

    @property
    def term(self) -> int | None:
        """The current term, None while another member may lead."""
        return self._term if self._leading else None

    async def wait(self, seconds: float) -> None:
        """Return when `term` has changed, or after `seconds`.

        Raises:
            KafkaError: the member has lost one of its tasks, and must be created again.

        """
        if self._loop.done():
            self._loop.result()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def over(self, term: int) -> None:
        """Return when a term is over."""
        while self.term == term:
            await self._changed.wait()
            self._changed.clear()

    async def confirm(self, term: int) -> float | None:
        """Return until when (CLOCK_BOOTTIME) we certainly lead; None if we may have been replaced.

        The commit also renews our session, so another member cannot be elected within a session timeout of its start.
        """
        if self.term != term:
            return None
        asked = boottime()
        try:
            async with asyncio.timeout(self.session_timeout):
                await self._consumer.commit({self._partition: OffsetAndMetadata(0, f"term {term}")})
        except (CommitFailedError, IllegalStateError, TimeoutError):
            return None
        except KafkaError as exc:
            log.warning("not_confirmed", why=type(exc).__name__)
            return None
        return asked + self.session_timeout if self.term == term else None

    async def _stay(self) -> None:
        """Poll to stay in the group; the topic does not have records."""
        try:
            while True:
                self.polled_at = boottime()
                check_tasks(self._consumer)
                try:
                    await self._consumer.getmany(timeout_ms=1000)
                except KafkaError as exc:
                    log.warning("election_poll_failed", why=type(exc).__name__)
                    await asyncio.sleep(1)
        finally:
            self.revoked()

    def revoked(self) -> None:
        """Note that a rebalance has begun, after which another member may lead."""
        self._leading = False
        self._changed.set()

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Note our assignment in the group's new generation."""
        self.joined = True
        self._term += 1
        self._leading = self._partition in set(partitions)
        self._changed.set()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, election: Election) -> None:
        self._election = election

    @override
    def on_partitions_revoked(self, revoked: Any) -> None:
        self._election.revoked()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._election.assigned(assigned)
