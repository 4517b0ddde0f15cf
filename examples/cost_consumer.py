"""Read what agents cost from tallystream's topics, rightly: a consumer to start from. It needs aiokafka alone.

    python examples/cost_consumer.py --kafka 127.0.0.1:9092                  from what sessions cost in each hour
    python examples/cost_consumer.py --kafka 127.0.0.1:9092 --topic hours    from what hours cost by model and team
    python examples/cost_consumer.py --kafka 127.0.0.1:29092 --secret ~/.local/share/tallystream/kafka/secret
                                                                             from the Kafka of `tallystream up`

Prints one JSON document: a total for each connection and hour, then ends; with `--follow` it prints a line whenever
a total has changed. docs/topics.md explains the rules that are kept here.
"""
# ruff: noqa: INP001, T201 - a script, which prints

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

TOPICS = {"session-hours": "cost.session-hours", "hours": "cost.hours"}
EXACT = Context(prec=60)
"""Adds dollars exactly, whatever their size."""


class Rows:
    """The newest row of each key. A consumer that keeps them in a database does the same in its upsert's WHERE."""

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[str, Any]] = {}

    def take(self, key: bytes, value: bytes | None) -> str | None:
        """Apply one record, in the order of its partition; return the connection whose totals it may have changed."""
        had = self._rows.get(key)
        if value is None:  # a tombstone: this key was removed
            self._rows.pop(key, None)
            return had["connection_id"] if had else None
        row = json.loads(value)
        # Absolute rows: a higher version replaces the whole row, an equal one repeats it, a lower one is stale.
        if had is not None and row["version"] < had["version"]:
            return None
        self._rows[key] = row
        return str(row["connection_id"])

    def totals(self, connection: str | None = None) -> list[dict[str, Any]]:
        """Return the sums by connection and hour. For `cost.hours` this adds the partials of all partitions, too."""
        sums: dict[tuple[str, str], dict[str, Any]] = defaultdict(
            lambda: {"requests": 0, "total_tokens": 0, "cost_usd": None, "unpriced_requests": 0}
        )
        for row in self._rows.values():
            if connection is None or row["connection_id"] == connection:
                _add(sums[row["connection_id"], row["hour"]], row.get("buckets", [row]))
        return [
            {"connection_id": who, "hour": hour, **total, "cost_usd": _text(total["cost_usd"])}
            for (who, hour), total in sorted(sums.items())
        ]


def _add(total: dict[str, Any], parts: Iterable[dict[str, Any]]) -> None:
    for part in parts:
        for name in ("requests", "total_tokens", "unpriced_requests"):
            total[name] += part[name]
        if part["cost_usd"] is not None:  # null is "could not be priced", which is not 0
            total["cost_usd"] = EXACT.add(total["cost_usd"] or Decimal(), Decimal(part["cost_usd"]))


def _text(dollars: Decimal | None) -> str | None:
    return None if dollars is None else format(dollars, "f")


async def main(kafka: str, secret: str | None, topic: str, *, follow: bool) -> None:
    """Read the topic from its beginning; it is compacted, so this gives every current row."""
    rows = Rows()
    login = {}
    if secret is not None:
        login = {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "tallystream",
            "sasl_plain_password": secret,
        }
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, auto_offset_reset="earliest", enable_auto_commit=False, **login
    )
    await consumer.start()
    try:
        numbers = consumer.partitions_for_topic(topic) or await _partitions(consumer, topic)
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        # By position and not by received records, because compaction leaves holes, even at the end of a partition.
        while any([await consumer.position(at) < end for at, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    rows.take(record.key, record.value)
        print(json.dumps(rows.totals(), indent=None if follow else 2), flush=True)
        while follow:
            changed = {
                rows.take(record.key, record.value)
                for records in (await consumer.getmany(timeout_ms=500)).values()
                for record in records
            }
            for connection in sorted(filter(None, changed)):
                print(json.dumps(rows.totals(connection)), flush=True)
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    consumer.subscribe([topic])
    await consumer.getmany(timeout_ms=1000)
    consumer.unsubscribe()
    numbers: set[int] | None = consumer.partitions_for_topic(topic)
    if not numbers:
        sys.exit(f"the topic {topic} does not exist: is --prefix right?")
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT")
    parser.add_argument("--secret", type=Path, metavar="FILE", help="DATA_DIR/kafka/secret, for the embedded Kafka")
    parser.add_argument("--prefix", default="tallystream")
    parser.add_argument("--topic", choices=sorted(TOPICS), default="session-hours")
    parser.add_argument("--follow", action="store_true", help="keep running and print changes")
    said = parser.parse_args()
    secret = said.secret.read_text().strip() if said.secret else None
    asyncio.run(main(said.kafka, secret, f"{said.prefix}.{TOPICS[said.topic]}", follow=said.follow))
