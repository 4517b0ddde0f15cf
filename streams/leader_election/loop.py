"""The loop of every elected process: stand by, lead, stand by again, and start again after an outage of Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from aiokafka.errors import KafkaError

from tallystream.schemas.errors import TallystreamError
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.leader_election.election import Election
from tallystream.streams.leader_election.fence import NotLeaderError
from tallystream.streams.local_disk import LocalDiskError, disk_error
from tallystream.streams.service.backoff import FailureBackoff

log = structlog.get_logger()
T = TypeVar("T")
TICK = 1.0


async def retry_while_away(work: Callable[[], Awaitable[T]], away: Callable[[float], None] = lambda _: None) -> T:
    """Run the work, and run it again with a growing delay whenever Kafka was unavailable; return its result.

    `away` is called with the seconds until the next attempt.

    Raises:
        LocalDiskError: the disk is full, or cannot be written.
        TallystreamError: an error that does not pass.

    """
    failures = FailureBackoff()
    while True:
        try:
            return await work()
        except TallystreamError as exc:
            if not exc.retryable or isinstance(exc, LocalDiskError):
                raise
            why = exc.message
        except (KafkaError, OSError) as exc:
            if (disk := disk_error(exc)) is not None:
                raise disk from exc
            why = f"{type(exc).__name__}: {exc}"
        pause = failures.after_failure()
        log.warning("kafka_away", why=why, retry_in_s=pause)
        away(pause)
        await asyncio.sleep(pause)


async def election_loop(
    election: Election,
    lead: Callable[[int], Awaitable[T | None]],
    standing_by: Callable[[], None],
    tick: float = TICK,
) -> T:
    """Stand by, and lead whenever elected; return the first result of `lead` that is not None.

    `lead(term)` is cancelled when its term is over, may raise NotLeaderError when it notices by itself, and must have
    cleaned up when it ends, because the next term may follow at once. `standing_by` is called every `tick` seconds
    meanwhile, and may raise.
    """
    while True:
        number = election.term
        if number is None:
            standing_by()
        else:
            try:
                result = await _lead(election, lead, number)
            except NotLeaderError:
                log.warning("standing_by", why="another member leads, or may lead")
            else:
                if result is not None:
                    return result
                continue
        await election.wait(tick)


async def _lead(election: Election, lead: Callable[[int], Awaitable[T | None]], number: int) -> T | None:
    """Run `lead` until it ends by itself, or until the term is over (None)."""
    leading = asyncio.ensure_future(lead(number))
    over = asyncio.ensure_future(election.over(number))
    try:
        await asyncio.wait({leading, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(leading, over)
    return None if leading.cancelled() else leading.result()
