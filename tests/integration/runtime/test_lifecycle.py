"""Starting and stopping workers, expiring rows, and what a worker reports."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.counting import WorkerConfig, build
from tests.support.kafka_proxy import PRODUCE, KafkaProxy, through
from tests.support.rig import Rig
from tests.support.waiting import PATIENCE

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.runtime.changelog import POSITION, WATERMARK, Position, Watermark, reserved
from tallystream.streams.runtime.faust_backend import run

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
STOPPED = 60.0
"""Seconds after which a supervisor would no longer wait for a worker that it has told to stop."""


async def test_sigterm_under_load_commits_all_that_was_folded(rig: Rig) -> None:
    """The group's offsets, the positions in the changelog and the public rows must agree."""
    async with rig.load(800):
        worker = rig.start(linger=0.3)
        await rig.until(lambda: worker.status().get("folded", 0) > 500, "it folds")
        assert await rig.terminate(worker) == 0
        committed = await rig.committed()
        positions = {
            record.partition: Position.decode(record.value).offset
            for record in await rig.read(rig.names.changelog)
            if record.key == POSITION and record.value
        }
        assert committed == positions
        assert worker.status()["folded"] > 0
        rig.start()
    await rig.caught_up()
    await rig.verify()


async def test_sigterm_during_the_start_ends_the_worker(rig: Rig) -> None:
    worker = rig.start()
    await rig.until(lambda: bool(worker.status()), "it is up")
    assert await rig.terminate(worker) == 0


async def test_worker_stops_while_kafka_does_not_answer(rig: Rig) -> None:
    """The start waits for an answer that never arrives; stopping must not wait for it."""
    asked = asyncio.Event()
    open_ones: list[asyncio.StreamWriter] = []

    def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        asked.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    worker = replace(rig, kafka=KafkaSettings(f"127.0.0.1:{port}")).start()
    await asyncio.wait_for(asked.wait(), PATIENCE)
    assert await rig.terminate(worker) == 0
    for writer in open_ones:
        writer.close()
    server.close()


async def test_worker_told_to_stop_while_nothing_is_acknowledged_leaves_nothing_uncounted(rig: Rig) -> None:
    """Its last rows have been written, but the acknowledgements for which a stop waits do not arrive."""
    async with through(KafkaProxy(rig.kafka)) as proxy, rig.load():
        worker = replace(rig, kafka=proxy.kafka).start(linger=0.05)
        await rig.folds(worker, 200)
        proxy.withheld = frozenset({PRODUCE})
        await rig.until(lambda: proxy.kept, "rows are written, and it is not told")
        worker.signal(signal.SIGTERM)
        assert await rig.exit_code(worker, STOPPED) in (0, 70)
        rig.start()
    await rig.caught_up()
    await rig.verify()


async def test_third_worker_can_join_and_leave(rig: Rig) -> None:
    async with rig.load():
        workers = [rig.start(name) for name in ("a", "b")]
        await rig.owned(*workers)
        third = rig.start("c")
        await rig.until(lambda: third.status().get("ready", False), "it is in")
        assert await rig.terminate(third) == 0
        await rig.owned(*workers)
    await rig.caught_up()
    await rig.verify()


async def test_app_in_our_loop_does_not_change_logging_or_streams(rig: Rig) -> None:
    """`run` without Faust's command line: in this very process, stopped by an event."""
    config = WorkerConfig(
        bootstrap=rig.kafka.bootstrap,
        prefix=rig.prefix,
        partitions=rig.partitions,
        datadir=str(rig.dir / "nested" / "data"),
        status="",
    )
    before = (list(logging.root.handlers), logging.root.level, sys.stdout, sys.stderr)
    app, table = build(config)
    assert not app.ready().ok
    stop = asyncio.Event()
    running = asyncio.create_task(run(app, stop))
    async with rig.producer() as producer:
        await rig.send(producer, 100)
    await rig.caught_up()
    assert app.ready().ok
    assert app.healthy().ok
    progress = table.engine.progress()
    assert sorted(progress.partitions) == [0, 1]
    assert all(one.expected == one.applied == one.end for one in progress.partitions.values())
    assert not progress.waiting
    stop.set()
    await running
    assert (list(logging.root.handlers), logging.root.level, sys.stdout, sys.stderr) == before
    await rig.verify()


async def test_dead_letters_and_derived_rows_carry_headers(rig: Rig) -> None:
    worker = rig.start()
    async with rig.producer() as producer:
        await producer.send_and_wait(rig.names.source, b"nonsense", partition=1)
        await producer.send_and_wait(rig.names.source, None, key=b"k", partition=0)
        await rig.send(producer, 20)
    await rig.caught_up()
    letters = await rig.read(rig.names.deadletters)
    assert sorted((x.partition, x.key, json.loads(x.value or b"")["reason"], x.writer) for x in letters) == [
        (0, b"0-0", "invalid", "w0"),
        (0, b"1-0", "invalid", "w0"),
    ]
    await rig.until(lambda: worker.status()["folded"] == 22, "all are folded")
    await rig.verify()


async def changelog_state(rig: Rig) -> tuple[dict[bytes, bytes | None], dict[int, Watermark]]:
    """Return the last record of each key, and each partition's highest marker; a tombstone follows its marker."""
    last: dict[bytes, bytes | None] = {}
    closed: dict[int, Watermark] = {}
    for record in await rig.read(rig.names.changelog):
        if record.key == WATERMARK and record.value:
            closed[record.partition] = max(
                Watermark.decode(record.value), closed.get(record.partition, Watermark(b"", 0))
            )
        elif not reserved(record.key):
            last[record.key] = record.value
            if record.value is None:
                assert int(record.key.split(b"|")[1]) < int(closed[record.partition].value)
    return last, closed


async def test_closed_buckets_are_removed_and_not_reopened(rig: Rig) -> None:
    """The test sets the append times: bucket 1000 closes once a record is appended 500 ms after it."""
    worker = rig.start(lateness=500)
    async with rig.producer() as producer:
        await rig.send(producer, 100, at=1000, bucket=1000)
        await rig.caught_up()
        assert worker.status()["expired"] == 0
        await rig.send(producer, 100, at=2000, bucket=2000)
        kept = dict(rig.truth)
        old = [key for key in kept if key.endswith(b"|1000")]
        await rig.caught_up()
        await rig.until(lambda: worker.status()["expired"] == len(old), "tombstones are written")
        last, closed = await changelog_state(rig)
        assert sorted(key for key, value in last.items() if value is None) == sorted(old)
        assert {p: mark.value for p, mark in closed.items()} == dict.fromkeys(range(2), b"%020d" % 1500)

        # too late: it becomes a dead letter, and the published total stays
        await producer.send_and_wait(rig.names.source, b"k1|1000 5", partition=1, timestamp_ms=2000)
        await rig.caught_up()
        assert [json.loads(x.value or b"")["reason"] for x in await rig.read(rig.names.deadletters)] == ["closed"]
        assert await rig.public_rows() == kept

        # a longer lateness and a clock that goes back change nothing, not even with an empty disk
        assert await rig.terminate(worker) == 0
        worker = rig.start("1", lateness=10_000_000)
        await producer.send_and_wait(rig.names.source, b"k1|1000 7", partition=1, timestamp_ms=1200)
        await rig.caught_up()
    assert len(await rig.read(rig.names.deadletters)) == 2
    assert await rig.public_rows() == kept
    _, closed = await changelog_state(rig)
    assert {mark.value for mark in closed.values()} == {b"%020d" % 1500}


async def test_expired_rows_are_removed_after_a_crash_before_their_tombstones(rig: Rig) -> None:
    """The watermark is in the changelog but not the tombstones; the next worker writes them and derives no rows."""
    async with rig.producer() as producer:
        await rig.send(producer, 100, at=1000, bucket=1000)
        await rig.send(producer, 100, at=2000, bucket=2000)
    worker = rig.start(lateness=500, sweep=False, instance="w")
    await rig.caught_up()
    await rig.verify()  # the bucket's records and those that close it arrived in the same group
    worker.kill()
    expired = sum(key.endswith(b"|1000") for key in rig.truth)
    worker = rig.start("1", lateness=500, instance="w")
    await rig.until(lambda: worker.status().get("expired", 0) == expired, "tombstones are written")
    sums = {key for key in await rig.public_rows(rig.names.sums) if key.endswith(b"|1000")}
    written_again = [x for x in await rig.read(rig.names.sums) if x.key in sums and x.writer == "w1"]
    assert not written_again
    assert await rig.public_rows() == dict(rig.truth)


async def test_signals_are_handled_without_fausts_command_line(rig: Rig, tmp_path: Path) -> None:
    worker = rig.start()
    await rig.until(lambda: worker.status().get("ready", False), "it is ready")
    worker.signal(signal.SIGINT)
    assert await rig.exit_code(worker) == 0
    assert worker.said().count("Traceback") == 0
