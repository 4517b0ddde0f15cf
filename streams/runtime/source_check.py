"""Checks that the source is the topic that was counted; if not, the process must not continue."""

from __future__ import annotations

from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import Position


def check_offset(source: TopicPartition, position: int, begin: int, end: int) -> None:
    """Refuse a source that begins after the position, or ends before it.

    Raises:
        UnfitError: it does.

    """
    if position > end:
        raise recreated(source, f"counted up to offset {position}, the topic ends at {end}")
    if position < begin:
        raise UnfitError(
            f"{source.topic}-{source.partition}: retention deleted {position} to {begin - 1} before they were counted",
            "run the worker (or `tallystream up`) with --accept-loss to record them as lost and continue; raise the"
            " topic's retention.ms above the longest outage",
        )


def find_other(position: Position, offset: int, append_ms: int) -> str | None:
    """Return why the record found at `offset`, just before the position, is not the one that was counted."""
    if position.append_ms < 0 or (offset, append_ms) == (position.offset - 1, position.append_ms):
        return None
    return (
        f"the record at offset {position.offset - 1} was appended at {position.append_ms} ms when it was counted,"
        f" now {offset} is there, appended at {append_ms} ms"
    )


def check_record(source: TopicPartition, position: Position, offset: int, append_ms: int) -> None:
    """Refuse a source where the record before the position is not the one that was counted.

    Raises:
        UnfitError: the record there, at `offset`, or its append time does not match the position.

    """
    why = find_other(position, offset, append_ms)
    if why is not None:
        raise recreated(source, why)


def recreated(source: TopicPartition, what: str) -> UnfitError:
    """Return the error for a source that is not the topic that was counted."""
    return UnfitError(
        f"{source.topic}-{source.partition}: {what}: the topic was deleted and created again, or cut",
        "start over with another TALLYSTREAM_PREFIX; or, when it is the same topic and a broker has lost records, run"
        " the worker (or `tallystream up`) with --accept-loss",
    )
