"""Converts the records of each topic to changes of the ledger. Pure.

A row of `cost.session-hours` is read exactly as `cost_query` reads it, or is `Unreadable`: `skipped` when the cost
tables leave it out, too, `unfit` when only the ledger cannot hold it. While an `unfit` row exists, `cost` reads the
topics instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_table import Table, exact_pico
from tallystream.agents.ledger.amounts import pack_version, unpack_version
from tallystream.schemas import keys
from tallystream.schemas.connections import Activity, Connection
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.hours import hour_from_iso, hour_iso
from tallystream.schemas.links import SessionLink
from tallystream.schemas.openai import BilledDay
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.schemas.rows import counts_of
from tallystream.schemas.usage import ATTRIBUTION_KEYS
from tallystream.schemas.versions import find_version

MAX_COUNT = 1 << 43
"""Limit of a count in one bucket (8.8e12 tokens in an hour), so that a million of them still fit into 64 bits."""
MAX_PICO = 10**27
_TEXTS = ("model", "book")
_OPTIONAL = ("service_tier", "speed")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of a row. `line` is (provider, model, service_tier, speed, book); money is pico-dollars or None."""

    line: tuple[str | None, ...]
    attribution: tuple[str | None, ...]
    counts: tuple[int, ...]
    cost: int | None
    reported: int | None


@dataclass(frozen=True, slots=True)
class SessionHourRow:
    """A session's hour; `version` is packed."""

    connection_id: str
    session_id: str
    hour: int
    version: int
    client: str
    duplicates: int
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that the ledger cannot store as a row. `version` is packed, None without a version."""

    reason: str
    detail: str
    version: int | None = None


def session_hour_key(key: bytes) -> tuple[str, str, int] | None:
    """Return (connection, session, hour) of a key, None when it is not the key of a session's hour."""
    try:
        connection, session, hour = keys.split(key)
        found = connection, session, hour_from_iso(hour)
    except ValueError:
        return None
    return found if keys.join(connection, session, hour_iso(found[2])) == key else None


def session_hour_row(key: bytes, value: bytes) -> SessionHourRow | Unreadable:
    """Return the row of a record of `cost.session-hours`."""
    pair = find_version(value)
    version = pack_version(*pair) if pair is not None else None
    if pair is not None and version is None:
        return Unreadable("unfit", "its version is larger than the ledger can hold")
    try:
        return _row(key, orjson.loads(value), version)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        return Unreadable("skipped" if _is_skipped(value) else "unfit", f"{type(exc).__name__}: {exc}"[:300], version)


def _row(key: bytes, row: Mapping[str, Any], version: int | None) -> SessionHourRow:
    connection, session, hour_text = row["connection_id"], row["session_id"], row["hour"]
    client, provider, duplicates = row["client"], row["provider"], row.get("duplicates", 0)
    hour = hour_from_iso(hour_text)
    if keys.join(connection, session, hour_iso(hour)) != key or hour_iso(hour) != hour_text:
        raise ValueError("its key is that of another row")
    if (
        version is None
        or row["version"] != unpack_version(version)
        or not isinstance(client, str)
        or not isinstance(provider, str)
        or "\0" in session + connection
    ):
        raise TypeError("a part of it is missing")
    if type(duplicates) is not int or not 0 <= duplicates < MAX_COUNT:
        raise ValueError("duplicates is not a count")
    seen = set()
    buckets = []
    for part in row["buckets"]:
        bucket = _bucket(provider, part)
        seen.add((bucket.line, bucket.attribution))
        buckets.append(bucket)
    if len(seen) != len(buckets):
        raise ValueError("two of its buckets are about the same")
    return SessionHourRow(connection, session, hour, version, client, duplicates, tuple(buckets))


def _bucket(provider: str, part: Mapping[str, Any]) -> Bucket:
    model, book = (part[name] for name in _TEXTS)
    tier, speed = (part.get(name) for name in _OPTIONAL)
    given = part.get("attribution") or {}
    attribution = tuple(given.get(name) for name in ATTRIBUTION_KEYS)
    for text in (model, book):
        if not isinstance(text, str):
            raise TypeError("a name is missing")
    for name in (model, book, tier, speed, *attribution):
        if name is not None and (not isinstance(name, str) or "\0" in name):
            raise TypeError("a name is not text that a database can hold")
    counts = counts_of(part)
    if not all(type(count) is int and 0 <= count < MAX_COUNT for count in counts):
        raise ValueError("a count is larger than the ledger can hold")
    money = [None if part.get(name) is None else exact_pico(part[name]) for name in ("cost_usd", "reported_cost_usd")]
    if any(amount is not None and not 0 <= amount < MAX_PICO for amount in money):
        raise ValueError("an amount of money is larger than the ledger can hold")
    return Bucket((provider, model, tier, speed, book), attribution, counts, money[0], money[1])


def _is_skipped(value: bytes) -> bool:
    """Tell whether the cost tables leave this value out."""
    table = Table(Query("session-hours"))
    if find_version(value) is None:
        return True
    table.add([value])
    return bool(table.skipped)


# -- the other topics: (columns, ...) by table


def connection_row(value: bytes) -> tuple[Any, ...]:
    """Return the columns of `connection`. Hashes of secrets are not copied from the topic.

    Raises:
        ValueError: it is not a Connection.

    """
    one = _valid(Connection, value)
    until = max((key.expires_at for key in one.ingest if key.expires_at), default=None)
    return (
        one.connection_id, one.provider, one.name, iso(one.created_at), iso(one.revoked_at), iso(until),
        int(one.bearer_sha256 is not None),
    )  # fmt: skip


def link_row(value: bytes) -> tuple[Any, ...]:
    """Return the columns of `session_link`.

    Raises:
        ValueError: it is not a SessionLink that a database can hold.

    """
    one = _valid(SessionLink, value)
    if "\0" in one.parent_session_id:
        raise ValueError("a database cannot hold its parent")
    return one.connection_id, one.session_id, one.parent_session_id


def activity_row(value: bytes) -> tuple[Any, ...]:
    """Return the columns of `activity`.

    Raises:
        ValueError: it is not an Activity.

    """
    one = _valid(Activity, value)
    return one.connection_id, one.signal, one.gateway, iso(one.last_synced_at), one.requests, one.records


def dead_letter_row(value: bytes) -> tuple[Any, ...]:
    """Return the columns of `dead_letter`, except the record's position.

    Raises:
        ValueError: it is not a DeadLetter.

    """
    one = _valid(DeadLetter, value)
    document = orjson.dumps(one.model_dump(mode="json", exclude_none=True)).decode()
    return tuple(
        text.replace("\0", "") if isinstance(text, str) else text
        for text in (
            one.source, str(one.reason), one.detail, iso(one.at), one.connection_id, one.client, one.session_id,
            document.replace("\\u0000", ""),
        )
    )  # fmt: skip


class VersionedRow(Protocol):
    """A row of a topic in which the highest version is valid."""

    @property
    def key(self) -> tuple[str, ...]:
        """The parts of its message's key."""
        ...

    @property
    def version(self) -> int:
        """Packed."""
        ...


@dataclass(frozen=True)
class DayRow:
    """A BilledDay with its packed version."""

    day: BilledDay
    version: int

    @property
    def key(self) -> tuple[str, str, str]:
        """Day, model and project; "" when absent."""
        return self.day.day, self.day.model or "", self.day.project_id or ""


def _packed(version: list[int]) -> int:
    """Return a version as one integer; raises ValueError when it does not fit."""
    packed = pack_version(*version)
    if packed is None:
        raise ValueError("its version is larger than the ledger can hold")
    return packed


def day_row(value: bytes) -> DayRow:
    """Return a billed day.

    Raises:
        ValueError: it is not a BilledDay, or its version does not fit.

    """
    day = _valid(BilledDay, value)
    version = _packed(day.version)
    return DayRow(day, version)


STATEMENT_COLUMNS = (
    "state", "reason", "as_of", "telemetry_as_of", "bill", "estimate", "difference", "seen_tokens", "billed_tokens",
    "document",
)  # fmt: skip


@dataclass(frozen=True)
class StatementRow:
    """A statement of the reconciliation with its packed version."""

    key: tuple[str, str, str]
    """Provider, scope and day."""
    version: int
    columns: tuple[Any, ...]
    """STATEMENT_COLUMNS."""
    causes: tuple[tuple[str, str], ...]
    """Those that are not 0; dollars as decimal text."""


def statement_row(value: bytes) -> StatementRow:
    """Return a statement.

    Raises:
        ValueError: it is not a ReconciledDay, or its version does not fit.

    """
    one = _valid(ReconciledDay, value)
    version = _packed(one.version)
    causes = {} if one.causes is None else one.causes.model_dump()
    columns = (
        one.state, one.reason and one.reason.replace("\0", ""), iso(one.as_of), iso(one.telemetry_as_of), one.bill_usd,
        one.estimate_usd, one.difference_usd, one.seen_tokens, one.billed_tokens,
        one.model_dump_json().replace("\\u0000", ""),
    )  # fmt: skip
    parts = tuple((name, usd) for name, usd in causes.items() if usd != "0")
    return StatementRow((one.provider, one.scope, one.day), version, columns, parts)


Model = TypeVar("Model", bound=BaseModel)


def _valid(model: type[Model], value: bytes) -> Model:
    try:
        return model.model_validate_json(value)
    except ValidationError as exc:
        raise ValueError(f"{exc.error_count()} fields are invalid") from None


def iso(at: datetime | None) -> str | None:
    """Return a time as text that sorts as the times do: UTC, microseconds."""
    if at is None:
        return None
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
