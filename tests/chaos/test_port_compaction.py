"""The sink after compaction of its topics: a restart and a takeover must still find everything that was sent."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import orjson
import pytest
from tests.support.compaction import holes, long_ago, tiny
from tests.support.port_rig import Rig, SinkProcess, make_row, rig, sink
from tests.support.waiting import until

from tallystream.schemas import keys
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
HOURS = ("2026-11-21T13:00:00Z", "2026-11-21T14:00:00Z")
SESSIONS = 30


async def right(one: Rig) -> None:
    await until(lambda: not one.wrong_sessions(), lambda: f"sessions differ: {one.wrong_sessions()}")


async def test_restart_and_takeover_on_compacted_topics_send_nothing_again(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng, times, version = random.Random(51), long_ago(), 0
    async with rig(kafka, prefix, partitions=2) as one:
        topics = one.topics
        sources = (topics.session_hour_rows, topics.port_sent)
        await tiny(kafka, *sources)

        async def change() -> None:
            """A new version of every session's hour, with timestamps that allow compaction; a few are out of order."""
            nonlocal version
            version += 10
            for number in range(SESSIONS):
                late = rng.random() < 0.1
                row = make_row(rng, f"s{number}", rng.choice(HOURS), version - 15 if late else version)
                name = (row["connection_id"], row["session_id"], row["hour"])
                kept = one.newest.get(name)
                if kept is None or row["version"] >= kept["version"]:
                    one.newest[name] = row
                elif late:
                    row = kept  # as workers do: the newer row is written again after the late one
                await one.producer.send(
                    topics.session_hour_rows.name, orjson.dumps(row), key=keys.join(*name), partition=number % 2,
                    timestamp_ms=next(times),
                )  # fmt: skip
            await one.producer.flush()

        async def compacted() -> bool:
            await change()  # the last segment is never compacted
            return min([await holes(kafka, topic.name) for topic in sources]) > 0.5

        with sink(one, tmp_path) as first:
            await change()
            await right(one)
            await until(compacted, "rows and notes are compacted")
            await right(one)

            # a copy that was filled before compaction, and continues after the holes
            writes = one.sandbox.store.writes
            assert await first.stop() == 0
            first.start()
            await until(first.idle, "everything was compared, and nothing is left to do")
            assert one.sandbox.store.writes == writes

            # a machine without a copy takes over from a sink that is killed during a write
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            with sink(one, elsewhere) as second:
                await until(lambda: _stands_by(second), "it stands by")
                await change()
                first.signal(signal.SIGKILL)
                await change()
                await until(lambda: second.metric("tallystream_sink_sweeps_total"), "everything was compared")
                await right(one)
                await until(second.idle, "nothing is left to do")
                assert not await one.letters()

                # another comparison, using only the compacted topics, finds nothing to send
                writes = one.sandbox.store.writes
                assert await second.stop() == 0
                third = tmp_path / "third"
                third.mkdir()
                with sink(one, third) as last:
                    await until(last.idle, "everything was compared, and nothing is left to do")
                    sent = one.sandbox.store.writes - writes
                    assert sent <= await last.metric("tallystream_sink_entities_resent_total"), "only what is in doubt"
                    assert not one.wrong_sessions()


async def _stands_by(one: SinkProcess) -> bool:
    return (await one.role()) == "standby"
