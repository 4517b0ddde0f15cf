"""The cost of the exact runtime, compared with plain aiokafka on the same records in the same run.

    python -m benchmarks.runtime [HOST:PORT] [--records N] [--rate R] [--seconds S]

Throughput: N records of a tiny fold, preloaded; thousand records per CPU-second of the reading process. Steady: R
records a second over all partitions; the worker's share of a core, groups a second, and the time from a record's send
to its public row being read. Figures depend on the machine: compare only within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.support.rig import Rig, Worker

from tallystream.streams.kafka.settings import KafkaSettings

PARTITIONS = 12
KEYS = 20_000


def cpu(worker: Worker) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def preload(rig: Rig, count: int) -> None:
    producer = AIOKafkaProducer(**rig.kafka.client(), linger_ms=20, max_batch_size=500_000)
    await producer.start()
    for n in range(count):
        key = n * 7919 % KEYS
        await producer.send(rig.names.source, b"k%d|0 %d" % (key, n % 1000), partition=key % PARTITIONS)
    await producer.stop()


BARE = """
import asyncio, resource, sys, uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
async def main(bootstrap, topic, partitions, count):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=20)
    await consumer.start()
    tps = [TopicPartition(topic, p) for p in range(partitions)]
    consumer.assign(tps)
    await consumer.seek_to_beginning()
    before = resource.getrusage(resource.RUSAGE_SELF)
    seen = 0
    while seen < count:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            seen += len(records)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    await consumer.stop()
uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def bare(rig: Rig, count: int) -> float:
    argv = [sys.executable, "-c", BARE, rig.kafka.bootstrap, rig.names.source, str(PARTITIONS), str(count)]
    return float(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout)


async def throughput(rig: Rig, count: int, store: Any) -> float:
    worker = rig.start("0", store=store, session_timeout=10.0)
    await rig.until(lambda: worker.status().get("ready", False), "it is ready", 60)
    before = cpu(worker)
    await rig.until(lambda: worker.status()["folded"] >= count and settled(worker), "all is counted", 300)
    spent = cpu(worker) - before
    worker.kill()
    return spent


def settled(worker: Worker) -> bool:
    return all(expected == applied for expected, applied in worker.status()["partitions"].values())


async def steady(rig: Rig, rate: int, seconds: float, **config: Any) -> dict[str, float]:
    worker = rig.start("0", session_timeout=10.0, **config)
    await rig.until(lambda: worker.status().get("ready", False), "it is ready", 60)
    sent: dict[bytes, float] = {}
    latencies: list[float] = []
    consumer = AIOKafkaConsumer(**rig.kafka.client(), fetch_max_wait_ms=20)
    await consumer.start()
    tps = [TopicPartition(rig.names.rows, p) for p in range(PARTITIONS)]
    consumer.assign(tps)
    await consumer.seek_to_end()
    for tp in tps:
        await consumer.position(tp)

    async def reading() -> None:
        while True:
            got = await consumer.getmany(timeout_ms=200)
            now = time.monotonic()
            latencies.extend(
                now - sent[record.key] for records in got.values() for record in records if record.key in sent
            )

    reader = asyncio.create_task(reading())
    producer = AIOKafkaProducer(**rig.kafka.client())
    await producer.start()
    run = uuid.uuid4().hex[:6].encode()
    begin, done = time.monotonic(), 0
    cpu_before, groups_before, warm = 0.0, 0, False
    while (now := time.monotonic() - begin) < seconds + 2:
        if not warm and now >= 2:
            warm, cpu_before, groups_before = True, cpu(worker), worker.status()["groups"]
            latencies.clear()
            measured_from = time.monotonic()
        for _ in range(int(now * rate) - done):
            key = run + b"-%d|0" % done
            sent[key] = time.monotonic()
            await producer.send(rig.names.source, key + b" 1", partition=done % PARTITIONS)
            done += 1
        await asyncio.sleep(0.002)
    elapsed = time.monotonic() - measured_from
    used, groups = cpu(worker) - cpu_before, worker.status()["groups"] - groups_before
    await asyncio.sleep(0.5)
    reader.cancel()
    await producer.stop()
    await consumer.stop()
    worker.kill()
    latencies.sort()
    return {
        "rate": rate,
        "cores": round(used / elapsed, 3),
        "groups_per_s": round(groups / elapsed),
        "rows_seen": len(latencies),
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 1),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
    }


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:

        async def rig() -> Rig:
            prefix = f"b{uuid.uuid4().hex[:10]}"
            directory = Path(scratch) / prefix
            directory.mkdir()
            made = Rig(KafkaSettings(arguments.bootstrap), prefix, directory, PARTITIONS)
            await made.create()
            return made

        for store in ("memory", "rocksdb") if arguments.records else ():
            one = await rig()
            await preload(one, arguments.records)
            base = bare(one, arguments.records)
            spent = await throughput(one, arguments.records, store)
            print(
                f"{store:8} {arguments.records / spent / 1000:6.0f} k/CPU-s, bare getmany"
                f" {arguments.records / base / 1000:6.0f}: {base / spent:.2f} of it"
            )
        for rate in arguments.rate:
            print(json.dumps(await steady(await rig(), rate, arguments.seconds, linger=arguments.linger)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"largest process: {peak} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap", nargs="?", default="127.0.0.1:9092")
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rate", type=int, action="append", default=[])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--linger", type=float, default=0.0)
    uvloop.run(main(parser.parse_args()))
