"""A logs request becomes packs of usage events, and what could not be counted. Nothing here depends on anything else
than the body: the same body always gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tallystream.schemas.clients.attribution import attribution, with_user
from tallystream.schemas.clients.base import Normaliser, Usage, bounded, kept
from tallystream.schemas.clients.registry import select
from tallystream.schemas.clients.unrecognised import unrecognised
from tallystream.schemas.errors import InvalidRecordError, Reason
from tallystream.schemas.otlp import Encoding, LogRecord, Value, read_logs
from tallystream.schemas.usage import MAX_SESSION_BYTES, Client


@dataclass(frozen=True, slots=True)
class Pack:
    """One session's events of one request, with one attribution."""

    client: Client
    provider: str
    session_id: str
    attribution: dict[str, str]
    """Fields of `Attribution`; the user is still as the client wrote it."""
    events: list[dict[str, Any]]
    """UsageEvents as plain dicts, None left out, in the order of the body."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that looks like usage and was not counted."""

    reason: Reason
    detail: str
    """For people; free of content."""
    index: int
    """The record's place among all records of the body."""
    client: Client | None
    session_id: str | None
    record: dict[str, Any]
    """The whole normalised event when there is one, else allow-listed fields."""


@dataclass(frozen=True, slots=True)
class LogsResult:
    """What a body held."""

    records: int
    """All log records, most of which are no usage."""
    packs: list[Pack] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def normalise_logs(body: bytes, encoding: Encoding) -> LogsResult:
    """Normalise a logs request.

    Raises:
        InvalidBodyError: it is no such request. Then nothing of it counts.

    """
    logs = read_logs(body, encoding)
    result = LogsResult(logs.records)
    packs: dict[tuple[Any, ...], Pack] = {}
    resource: dict[str, Value] | None = None
    found: dict[str, str] = {}
    for record in logs.candidates:
        if record.resource is not resource:
            resource = record.resource
            found = attribution(resource)
        normaliser = select(record)
        usage = None
        if normaliser is not None and record.event_name == normaliser.event:
            try:
                usage = normaliser.normalise(record)
                if usage is not None:
                    _pack(packs, normaliser, found, usage)
                    continue
            except InvalidRecordError as verdict:
                result.rejected.append(_rejected(record, normaliser, usage, verdict))
                continue
        lost = unrecognised(record, normaliser)
        if lost is not None:
            result.rejected.append(_unrecognised(record, normaliser, lost))
    result.packs.extend(packs.values())
    return result


def _pack(packs: dict[tuple[Any, ...], Pack], normaliser: Normaliser, found: dict[str, str], usage: Usage) -> None:
    session = usage.session_id
    if not session:
        raise InvalidRecordError(Reason.NO_SESSION, "the record names no session")
    if len(session) * 4 > MAX_SESSION_BYTES and (size := len(session.encode())) > MAX_SESSION_BYTES:
        raise InvalidRecordError(
            Reason.NO_SESSION, f"the session id has {size} bytes, at most {MAX_SESSION_BYTES} are allowed"
        )
    whose = with_user(found, usage.user)
    key = (normaliser.client, session, *whose.items())
    pack = packs.get(key)
    if pack is None:
        pack = packs[key] = Pack(normaliser.client, normaliser.provider, session, whose, [])
    pack.events.append(usage.event)


def _rejected(record: LogRecord, normaliser: Normaliser, usage: Usage | None, verdict: InvalidRecordError) -> Rejected:
    fields = kept(record, normaliser.fields)
    return Rejected(
        verdict.reason,
        verdict.message,
        record.index,
        normaliser.client,
        _session(fields),
        fields if usage is None else usage.event,
    )


def _unrecognised(record: LogRecord, normaliser: Normaliser | None, lost: dict[str, Any]) -> Rejected:
    client = normaliser.client if normaliser else None
    return Rejected(
        Reason.UNRECOGNISED_USAGE,
        f"{bounded(record.event_name) or 'a record without event.name'} carries token counts,"
        f" but is no event of {client or 'a client'} that we know to cost",
        record.index,
        client,
        _session(lost),
        lost,
    )


def _session(fields: dict[str, Any]) -> str | None:
    for name in ("conversation.id", "session.id"):
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return None
