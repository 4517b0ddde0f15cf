"""Turns a logs request into packs of usage events and a list of rejected records.

The result depends only on the body.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from tallystream.schemas.clients.attribution import attribution, with_agent, with_payer, with_user
from tallystream.schemas.clients.base import Normaliser, Usage, bounded, kept
from tallystream.schemas.clients.registry import ALL_FIELDS, costs, select
from tallystream.schemas.clients.unrecognised import unrecognised
from tallystream.schemas.errors import InvalidRecordError, Reason, TooManyElementsError
from tallystream.schemas.otlp import LIMITS, BrokenRecord, Encoding, Limits, LogRecord, Value, read_logs
from tallystream.schemas.otlp.shared_resource import SharedResource
from tallystream.schemas.usage import DISJOINT_COUNTS, MAX_EVENT_TOKENS, MAX_SESSION_BYTES, Client


@dataclass(frozen=True, slots=True)
class Pack:
    """One session's events of one request, with one attribution."""

    client: Client
    provider: str
    session_id: str
    attribution: dict[str, str]
    """Fields of `Attribution`; the user is still as the client wrote it."""
    events: list[dict[str, Any]]
    """UsageEvents as plain dicts, without None values, in the order of the body."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that looks like usage and was not counted."""

    reason: Reason
    detail: str
    """For people; never contains content."""
    index: int
    """The record's place among all records of the body."""
    client: Client | None
    session_id: str | None
    record: dict[str, Any]
    """Its allow-listed fields, which `renormalise` can read."""
    attribution: dict[str, str] = field(default_factory=dict)
    """As in a pack: the user is still as the client wrote it."""
    folded: int = 0
    """How many more records of this body were rejected for the same reason without being kept one by one."""


@dataclass(frozen=True, slots=True)
class LogsResult:
    """The contents of a body."""

    records: int
    """Number of all log records; most of them are not usage."""
    packs: list[Pack] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Number of rejected records, including those that were folded into another one."""
        return len(self.rejected) + sum(rejected.folded for rejected in self.rejected)


_COUNTS: Final = DISJOINT_COUNTS
MOST_REJECTED: Final = 256
"""Maximum number of rejected records per body that are kept one by one; beyond it, the last one of each reason has the
number of the others."""


def normalise_logs(body: bytes, encoding: Encoding, limits: Limits = LIMITS) -> LogsResult:
    """Normalise a logs request.

    Raises:
        InvalidBodyError: it is not a logs request, or exceeds a limit. Then nothing in it counts.

    """
    logs = read_logs(body, encoding, limits)
    packs: dict[tuple[Any, ...], Pack] = {}
    same: dict[tuple[Any, ...], Pack] = {}
    places: dict[str, tuple[Pack, int]] = {}
    aside = RejectedRecords()
    resource: dict[str, Value] | None = None
    found: dict[str, str] = {}
    for record in logs.candidates:
        if isinstance(record, BrokenRecord):
            aside.add(_broken(record))
            continue
        if record.resource is not resource:
            resource = record.resource
            found = _attribution(resource)
            same.clear()
        normaliser = select(record)
        if normaliser is not None and costs(record, normaliser):
            try:
                usage = _usage(record, normaliser)
                if usage is not None:
                    # records of one resource that say the same of their request have one attribution
                    told = (normaliser.client, usage.session_id, usage.user, usage.agent, usage.provider, usage.payer)
                    pack = same.get(told)
                    if pack is None:
                        pack = same[told] = _pack(packs, normaliser, found, usage)
                        if len(packs) > limits.sessions:
                            raise TooManyElementsError(f"the body has more than {limits.sessions} sessions")
                    if (lesser := _add(pack, usage.event, places)) is not None:
                        owner, place = places[usage.event["event_id"]]
                        counted = owner.events[place]
                        aside.add(_conflicting(record, normaliser, found, usage.session_id, counted, lesser))
                    continue
            except InvalidRecordError as verdict:
                aside.add(_rejected(record, normaliser, found, verdict))
                continue
        lost = unrecognised(record, normaliser)
        if lost is not None:
            aside.add(_unrecognised(record, normaliser, found, lost))
    return LogsResult(logs.records, list(packs.values()), aside.kept)


def _attribution(resource: dict[str, Value]) -> dict[str, str]:
    """Return a resource's attribution, which a shared one remembers."""
    if not isinstance(resource, SharedResource):
        return attribution(resource)
    if resource.attribution is None:
        resource.attribution = attribution(resource)
    return resource.attribution


def normalise_record(record: LogRecord, whose: dict[str, str]) -> Pack | None:
    """Normalise a single record; None when it does not cost anything or its client is unknown.

    Raises:
        InvalidRecordError: it cannot be counted.

    """
    normaliser = select(record)
    if normaliser is None or not costs(record, normaliser):
        return None
    packs: dict[tuple[Any, ...], Pack] = {}
    usage = _usage(record, normaliser)
    if usage is not None:
        _pack(packs, normaliser, whose, usage).events.append(usage.event)
    return next(iter(packs.values()), None)


def _usage(record: LogRecord, normaliser: Normaliser) -> Usage | None:
    """Return the record's usage, None when it does not cost anything; raises what `normalise` raises."""
    usage = normaliser.normalise(record)
    if usage is None:
        return None
    event = usage.event
    total = event["input_uncached"] + event["cache_read"] + event["cache_write_5m"] + event["cache_write_1h"]
    if total + event["output"] + event["tool"] >= MAX_EVENT_TOKENS:
        raise InvalidRecordError(
            Reason.INVALID_COUNTS, f"the record has {MAX_EVENT_TOKENS} tokens or more, which no response can have"
        )
    return usage


class RejectedRecords:
    """Rejected records, bounded: a sender must not be able to create an unlimited number of dead letters."""

    def __init__(self) -> None:
        self.kept: list[Rejected] = []
        self._last: dict[Reason, int] = {}

    def add(self, rejected: Rejected) -> None:
        """Keep a record, or count it in the last one of its reason."""
        place = self._last.get(rejected.reason)
        if place is None or len(self.kept) < MOST_REJECTED:
            self._last[rejected.reason] = len(self.kept)
            self.kept.append(rejected)
        else:
            self.kept[place] = replace(self.kept[place], folded=self.kept[place].folded + 1)


def _pack(packs: dict[tuple[Any, ...], Pack], normaliser: Normaliser, found: dict[str, str], usage: Usage) -> Pack:
    """Return the pack that an event belongs to."""
    session = usage.session_id
    if not session:
        raise InvalidRecordError(Reason.NO_SESSION, "the record does not name a session")
    if len(session) * 4 > MAX_SESSION_BYTES and (size := len(session.encode())) > MAX_SESSION_BYTES:
        raise InvalidRecordError(
            Reason.NO_SESSION, f"the session id has {size} bytes, at most {MAX_SESSION_BYTES} are allowed"
        )
    whose = with_payer(with_agent(with_user(found, usage.user), usage.agent), usage.payer)
    provider = usage.provider or normaliser.provider
    key = (normaliser.client, provider, session, *whose.items())
    pack = packs.get(key)
    if pack is None:
        pack = packs[key] = Pack(normaliser.client, provider, session, whose, [])
    return pack


def _add(pack: Pack, event: dict[str, Any], places: dict[str, tuple[Pack, int]]) -> dict[str, Any] | None:
    """Add an event to its pack; return the event that does not count because another one with its identity is larger.

    The fold recognises copies by their identity and counts the first one. But a client that reports a request twice
    with different counts reported it once before it was finished, so the larger one must be chosen here.
    """
    identity = event["event_id"]
    earlier = places.get(identity)
    if earlier is not None:
        owner, place = earlier
        before = owner.events[place]
        if _counts(before) != _counts(event):
            if _size(event) < _size(before):
                return event
            owner.events[place] = event
            return before
    places[identity] = pack, len(pack.events)
    pack.events.append(event)
    return None


def _counts(event: dict[str, Any]) -> tuple[int, ...]:
    return tuple(event[name] for name in _COUNTS)


def _size(event: dict[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Return what decides which of two different records of a request is the larger, as the fold does."""
    counts = _counts(event)
    return sum(counts), counts


def _conflicting(
    record: LogRecord,
    normaliser: Normaliser,
    whose: dict[str, str],
    session: str,
    counted: dict[str, Any],
    lesser: dict[str, Any],
) -> Rejected:
    return Rejected(
        Reason.CONFLICTING_COUNTS,
        f"two records of one request: {sum(_counts(counted))} tokens counted, the other has {sum(_counts(lesser))}",
        record.index,
        normaliser.client,
        bounded(session),
        {"counted": counted, "other": lesser},
        _whose(whose, normaliser, record),
    )


def _broken(record: BrokenRecord) -> Rejected:
    """Reject a record that cannot be decoded, keeping the parts that could be."""
    found = record.found
    fields = {} if found is None else kept(found, ALL_FIELDS)
    whose = {} if found is None else attribution(found.resource)
    normaliser = None if found is None else select(found)
    client = normaliser.client if normaliser else None
    return Rejected(Reason.UNDECODABLE, record.why, record.index, client, _session(fields), fields, whose)


def _rejected(
    record: LogRecord, normaliser: Normaliser, whose: dict[str, str], verdict: InvalidRecordError
) -> Rejected:
    fields = kept(record, normaliser.fields)
    return Rejected(
        verdict.reason,
        verdict.message,
        record.index,
        normaliser.client,
        _session(fields),
        fields,
        _whose(whose, normaliser, record),
    )


def _unrecognised(
    record: LogRecord, normaliser: Normaliser | None, whose: dict[str, str], lost: dict[str, Any]
) -> Rejected:
    client = normaliser.client if normaliser else None
    return Rejected(
        Reason.UNRECOGNISED_USAGE,
        f"{bounded(record.event_name) or 'a record without event.name'} carries token counts,"
        f" but is not a known usage event of {client or 'a client'}",
        record.index,
        client,
        _session(lost),
        lost,
        _whose(whose, normaliser, record) if normaliser else whose,
    )


def _whose(found: dict[str, str], normaliser: Normaliser, record: LogRecord) -> dict[str, str]:
    """Return the attribution with the user and the payer that a record names."""
    return with_payer(with_user(found, normaliser.user(record)), normaliser.payer(record))


def _session(fields: dict[str, Any]) -> str | None:
    for name in ("conversation.id", "session.id", "conversation_id", "session_id"):
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return None
