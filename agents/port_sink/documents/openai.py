"""Documents of OpenAI's data: the endpoints' own rows, and days combined from `openai.days`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from tallystream.agents.port_sink.documents.amounts import COSTS, DASHBOARD, usable
from tallystream.agents.port_sink.documents.base import Document, DocumentRows
from tallystream.agents.port_sink.documents.sums import money
from tallystream.schemas import keys
from tallystream.schemas.money import to_pico
from tallystream.schemas.openai import OpenAIRecord, bucket_of, seconds

ORGANIZATION = "/organization/usage/"
LEGACY = "/usage"
REQUESTS = "num_model_requests"
ASKS_MODEL = frozenset(
    f"{ORGANIZATION}{name}"
    for name in ("completions", "embeddings", "moderations", "images", "audio_speeches", "audio_transcriptions")
)
"""Usage resources with their own requests; requests of the tools are already included in completions."""
META = {"resource", "query", "bucket", "starts_at", "ends_at", "polled_at"}
"""Fields of a record in `$record`."""
TOKENS = ("input_tokens", "output_tokens")
LEGACY_TOKENS = ("n_context_tokens_total", "n_generated_tokens_total")


class EndpointDocuments:
    """`/path`: the rows of a bucket as OpenAI gave them. Those of the dashboard get `total_usage`, the day's cents.

    With `buckets`, the one record is the bucket itself, with its rows in `results`: what a mapping expects whose
    `itemsToParse` goes through them.
    """

    def __init__(self, resource: str, *, buckets: bool = False) -> None:
        self._resource = resource
        self._buckets = buckets
        self.prefixes: tuple[bytes, ...] = (b"R|",)
        self._prefix = b"R|" + keys.join(resource) + b"|"

    def key_for(self, row: bytes) -> bytes | None:
        """Return the record's key, when it is of this endpoint."""
        return row[2:] if row.startswith(self._prefix) else None

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the endpoint's buckets."""
        return (row[2:] for row, _ in rows.scan(self._prefix))

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Return the bucket's rows, with their exact numbers."""
        kept = rows.get(b"R|" + key)
        if kept is None:
            return None
        record = OpenAIRecord.model_validate_json(kept.value)
        meta = record.model_dump(mode="json", include=META)
        end = record.ends_at
        records = record.exact_rows()
        if self._buckets and record.starts_at is not None and end is not None:
            records = [bucket_of(seconds(record.starts_at), seconds(end), records)]
        records, unusable = usable(self._resource, records)
        return Document(
            records,
            None if end is None else int(end.timestamp() * 1000),
            kept.version[0],
            meta,
            unusable,
        )


class DayFigures:
    """One UTC day, combined from its resources, whose values are never added up.

    Cost is taken from `/organization/costs`, else from the dashboard; requests and tokens from `/organization/usage/*`,
    else from the legacy `/usage`. Missing values are null, not 0.
    """

    def __init__(self) -> None:
        self._cost: dict[str, int] = {}
        self._requests: dict[bool, int] = {}
        self._tokens: dict[bool, int] = {}
        self.empty = True

    def add(self, row: dict[str, Any]) -> None:
        """Add a BilledDay."""
        for billed in row["billed"]:
            self.empty = False
            self._cost[billed["resource"]] = self._cost.get(billed["resource"], 0) + to_pico(billed["usd"])
        for used in row["used"]:
            self.empty = False
            resource, counts = used["resource"], used["counts"]
            if resource == LEGACY:
                requests, tokens = counts.get("n_requests", 0), sum(counts.get(name, 0) for name in LEGACY_TOKENS)
            elif resource in ASKS_MODEL:
                requests, tokens = counts.get(REQUESTS, 0), sum(counts.get(name, 0) for name in TOKENS)
            else:
                continue
            current = resource != LEGACY
            self._requests[current] = self._requests.get(current, 0) + requests
            self._tokens[current] = self._tokens.get(current, 0) + tokens

    @property
    def current(self) -> bool:
        """Whether the current usage endpoints say something of this day."""
        return True in self._requests

    def fields(self, *, current: bool | None = None) -> dict[str, Any]:
        """Return requests, tokens, and cost both ways."""
        which = self.current if current is None else current
        return {
            "requests": self._requests.get(which),
            "tokens": self._tokens.get(which),
            **money("cost", "cost_usd", self._cost.get(COSTS, self._cost.get(DASHBOARD))),
        }


class Daily:
    """`openai-daily`: day, requests, tokens, cost_usd (exact text), cost (number); all models and projects."""

    prefixes: tuple[bytes, ...] = (b"D|",)

    def key_for(self, row: bytes) -> bytes:
        """Return the day."""
        return row[2:].split(b"|", 1)[0]

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the days."""
        last = None
        for row, _ in rows.scan(b"D|"):
            if (key := self.key_for(row)) != last:
                last = key
                yield key

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Build the day. A day without figures any more is shown with zeros instead of disappearing."""
        day = DayFigures()
        found = False
        for _, kept in rows.scan(b"D|" + key + b"|"):
            found = True
            day.add(orjson.loads(kept.value))
        if not found:
            return None
        fields = day.fields()
        if day.empty:
            fields |= {"requests": 0, "tokens": 0, **money("cost", "cost_usd", 0)}
        (name,) = keys.split(key)
        return Document([{"day": name, **fields}], _end_ms(name))


class ModelDaily:
    """`openai-model-daily`: the same for one model (`model`) of the day, over all projects."""

    prefixes: tuple[bytes, ...] = (b"D|",)

    def key_for(self, row: bytes) -> bytes:
        """Return the day: that the current endpoints begin to speak of it changes all of its models."""
        return row[2:].split(b"|", 1)[0]

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the days."""
        return Daily().keys(rows)

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Put the models of the day together."""
        whole, models = DayFigures(), dict[str, DayFigures]()
        for row, kept in rows.scan(b"D|" + key + b"|"):
            found = orjson.loads(kept.value)
            whole.add(found)
            model = keys.split(row)[2]
            if model:
                models.setdefault(model, DayFigures()).add(found)
        (name,) = keys.split(key)
        records = []
        for model, day in sorted(models.items()):
            fields = day.fields(current=whole.current)
            if fields["requests"] is None and day.empty:
                fields |= {"requests": 0, "tokens": 0}
            if fields["requests"] is not None:
                records.append({"day": name, "model": model, **fields})
        return Document(records, _end_ms(name)) if records else None


def _end_ms(day: str) -> int:
    return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() + 86_400) * 1000
