"""Documents from telemetry: sessions, their hours, models, connections, and cost per hour and model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import orjson

from tallystream.agents.port_sink.documents.base import Document, DocumentRows
from tallystream.agents.port_sink.documents.sums import DocumentTotals
from tallystream.schemas import keys
from tallystream.schemas.hours import HOUR_MS, hour_from_iso


class SessionDocuments:
    """`session`: all hours of a session added up.

    connection_id, session_id, client, provider, started_at and last_hour_at (hours by event time), hours, models,
    openai_models, attribution (of the newest hour, where most of its requests are), the counts of a cost row, cost_usd
    (exact text), cost (number), reported_cost_usd, reported_cost.
    """

    prefixes: tuple[bytes, ...] = (b"S|",)

    def key_for(self, row: bytes) -> bytes:
        """Return `connection|session`."""
        return row[2:].rpartition(b"|")[0]

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the sessions: the rows of one lie together."""
        last = None
        for row, _ in rows.scan(b"S|"):
            key = self.key_for(row)
            if key != last:
                last = key
                yield key

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Add the session's hours up."""
        totals, models = DocumentTotals(), dict[str, None]()
        first = last = None
        for _, kept in rows.scan(b"S|" + key + b"|"):
            row = orjson.loads(kept.value)
            for bucket in row["buckets"]:
                totals.add(bucket)
                models[bucket["model"]] = None
            first = first or row
            last = row
        if first is None or last is None:
            return None
        names = sorted(models)
        record = {
            "connection_id": last["connection_id"],
            "session_id": last["session_id"],
            "client": last["client"],
            "provider": last["provider"],
            "started_at": first["hour"],
            "last_hour_at": last["hour"],
            "models": names,
            "openai_models": names if last["provider"] == "openai" else [],
            "attribution": _attribution(last["buckets"]),
            **totals.fields(),
        }
        return Document([record], _end_ms(last["hour"]))


class SessionHourDocuments:
    """`session-hour`: one hour of a session; the fields of `session`, with `hour` instead of the first and the last."""

    prefixes: tuple[bytes, ...] = (b"S|",)

    def key_for(self, row: bytes) -> bytes:
        """Return `connection|session|hour`."""
        return row[2:]

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the rows."""
        return (row[2:] for row, _ in rows.scan(b"S|"))

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Add the buckets of the hour up."""
        kept = rows.get(b"S|" + key)
        if kept is None:
            return None
        row, totals = orjson.loads(kept.value), DocumentTotals()
        for bucket in row["buckets"]:
            totals.add(bucket)
        record = {
            **{name: row[name] for name in ("connection_id", "session_id", "client", "provider", "hour")},
            "models": sorted({bucket["model"] for bucket in row["buckets"]}),
            "attribution": _attribution(row["buckets"]),
            **totals.fields(),
        }
        return Document([record], _end_ms(row["hour"]))


class CostHourDocuments:
    """`cost-hour`: hour, model, the counts of a cost row and its money; all connections, teams and partitions.

    `agents` is the same by agent and adds up to it: agent (null: not named, or from a row that is not told apart by
    agent), counts, money.
    """

    prefixes: tuple[bytes, ...] = (b"H|",)

    def key_for(self, row: bytes) -> bytes:
        """Return `hour|model`."""
        return b"|".join(row[2:].split(b"|", 2)[:2])

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the hours and models: the partials of one lie together."""
        last = None
        for row, _ in rows.scan(b"H|"):
            key = self.key_for(row)
            if key != last:
                last = key
                yield key

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Add the partials up."""
        totals, agents = DocumentTotals(), defaultdict[str, DocumentTotals](DocumentTotals)
        for _, kept in rows.scan(b"H|" + key + b"|"):
            row = orjson.loads(kept.value)
            totals.add(row)
            parts = row.get("agents")
            for part in [row] if parts is None else parts:
                agents[part.get("agent") or ""].add(part)
        if not agents:
            return None
        hour, model = keys.split(key)
        by_agent = [{"agent": agent or None, **part.fields()} for agent, part in sorted(agents.items())]
        return Document([{"hour": hour, "model": model, **totals.fields(), "agents": by_agent}], _end_ms(hour))


class ModelDocuments:
    """`model`: provider and model, as seen in sessions."""

    prefixes: tuple[bytes, ...] = (b"M|",)

    def key_for(self, row: bytes) -> bytes:
        """Return `provider|model`."""
        return row[2:]

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the models."""
        return (row[2:] for row, _ in rows.scan(b"M|"))

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Return provider and model."""
        if rows.get(b"M|" + key) is None:
            return None
        provider, model = keys.split(key)
        return Document([{"provider": provider, "model": model}])


class ConnectionDocuments:
    """`connection`: connection_id, name, provider, state, created_at, revoked_at, last_synced_at, requests, records.

    The document does not contain a connection's secrets or their hashes. A connection that sessions name but the
    registry does not have is named by its id.
    """

    prefixes: tuple[bytes, ...] = (b"C|", b"A|", b"N|")

    def key_for(self, row: bytes) -> bytes:
        """Return the connection."""
        return row[2:].split(b"|", 1)[0]

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over connections registered, then over those only seen."""
        for row, _ in rows.scan(b"C|"):
            yield row[2:]
        for row, _ in rows.scan(b"N|"):
            if rows.get(b"C|" + row[2:]) is None:
                yield row[2:]

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Put registry and activity together."""
        registered, seen = rows.get(b"C|" + key), rows.get(b"N|" + key)
        if registered is None and seen is None:
            return None
        (name,) = keys.split(key)
        record: dict[str, Any] = {
            "connection_id": name, "name": name, "provider": seen.value.decode() if seen else None, "state": None,
            "created_at": None, "revoked_at": None,
        }  # fmt: skip
        if registered is not None:
            found = orjson.loads(registered.value)
            record |= {field: found.get(field) for field in ("name", "provider", "created_at", "revoked_at")}
            record["state"] = "active" if found.get("revoked_at") is None else "revoked"
        activity = [orjson.loads(kept.value) for _, kept in rows.scan(b"A|" + key + b"|")]
        record["last_synced_at"] = max((one["last_synced_at"] for one in activity), default=None)
        record["requests"] = sum(one["requests"] for one in activity)
        record["records"] = sum(one["records"] for one in activity)
        return Document([record])


def _attribution(buckets: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the attribution that most requests have; of equals, the one that comes first in the alphabet."""
    weights: dict[bytes, int] = {}
    for bucket in buckets:
        name = orjson.dumps(bucket["attribution"], option=orjson.OPT_SORT_KEYS)
        weights[name] = weights.get(name, 0) + bucket["requests"]
    best = min(weights, key=lambda name: (-weights[name], name), default=b"{}")
    found: dict[str, Any] = orjson.loads(best)
    return found


def _end_ms(hour: str) -> int:
    return (hour_from_iso(hour) + 1) * HOUR_MS
