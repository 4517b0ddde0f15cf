"""Group commit: everything folded since the last group leaves together, in the one order that loses nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from aiokafka.structs import TopicPartition

from tallystream.streams.runtime import expiry
from tallystream.streams.runtime.changelog import CLOSED, POSITION, Row
from tallystream.streams.runtime.faust_backend.producer import Producer
from tallystream.streams.runtime.partition import Part

if TYPE_CHECKING:
    from tallystream.streams.runtime.faust_backend.table import FoldTable


async def commit_groups(table: FoldTable, p: int, part: Part) -> None:
    """Commit one group after another for as long as the partition is ours; any failure ends the process."""
    try:
        while True:
            await part.wake.wait()
            if table.linger:
                await asyncio.sleep(table.linger)
            part.wake.clear()
            if part.waiting or part.expired:
                await commit_group(table, p, part)
    except Exception as exc:  # noqa: BLE001 - whatever it is, going on could lose records
        table.app.die(exc)


async def commit_group(table: FoldTable, p: int, part: Part) -> None:
    """Commit what is dirty.

    Promise: all rows of the group are serialised from one snapshot before the first is sent, so what the topics hold
    is one moment's state. Public rows are acknowledged before the changelog is written, and the changelog before the
    store: what the changelog holds has been published, and what the store holds is in the changelog. Each changelog
    batch opens with the position before the group; the last one ends with the marker, when it rises, and the position
    after it, both in that one batch: of a torn group only rows remain, which the position read back folds over.

    Raises:
        UnfitError: a row does not fit a record batch; nothing has been sent.

    """
    producer, store = cast(Producer, table.app.producer), table.store
    states, part.dirty, part.waiting = part.dirty, {}, False
    before, after = part.applied, part.folded
    expired = [key for key in part.expired if key not in states]
    part.expired = [key for key in part.expired if key in states]

    public = [
        producer.pack(out.topic, out.partition, out.rows, headers=out.headers)
        for out in table.public(p, states, after.offset - 1)
        if out.rows
    ]
    closed = expiry.raise_marker(table, part, after)  # now: what was folded until here was folded under the old one
    dump = table.dump
    rows: list[Row] = [(key, dump(state)) for key, state in states.items()]
    rows.extend((key, None) for key in expired)
    closing: list[Row] = [(POSITION, after.encode())]
    if closed is not None:
        closing.insert(0, (CLOSED, closed.encode()))
    changelog = producer.pack(table.changelog_topic_name, p, rows, opening=(POSITION, before.encode()), closing=closing)

    began = time.monotonic()
    await producer.write(public)
    published = time.monotonic()
    last = await producer.write([changelog], expect=store.changelog_offset(p) + 1)
    acked = time.monotonic()
    if table.part(p) is not part:
        return  # revoked meanwhile: the next owner reads what was acknowledged

    store.write(p, [*rows, *closing], last)
    for out in public:
        if out.topic in table.owned_topics:
            table.overtaken.landed(TopicPartition(out.topic, out.partition), out.landed)
    part.applied = after
    part.unacked_since = time.monotonic() if part.expected > after.offset else None
    counters = table.counters
    counters.groups += 1
    counters.public_seconds += published - began
    counters.changelog_seconds += acked - published
    counters.rows += len(rows)
    counters.expired += len(expired)
    table.moved()
    for key in expired:
        part.cache.pop(key, None)
    if len(part.cache) > table.max_cache:
        part.cache = dict(part.dirty)
    if part.expected - after.offset < table.max_unacked:
        part.room.set()
    if part.expired:
        part.wake.set()
    else:
        part.swept.set()
    if closed is not None:
        part.tombstone = closed.marker
        expiry.start(table, p, part)
