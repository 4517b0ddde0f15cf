"""Dead letters of usage messages: `schemas.deadletters.DeadLetter` rows, the same for the same message every time.

The key is `usage|partition|offset|index`. A refused event is kept as a complete UsageBatch (`record`), so that it can
be produced to `usage` again unchanged. Data that does not fit the schema is kept only as size and hash, because it
could be anything, including content.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from tallystream.agents.session_cost.hour_state import REPLACED, Outcome, State
from tallystream.agents.session_cost.parse import Event, ParsedBatch
from tallystream.schemas import topic_names
from tallystream.schemas.corrections import PriceCorrection
from tallystream.schemas.dead_letter_builder import dead_letter
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import hour_iso, hour_of
from tallystream.schemas.money import to_usd
from tallystream.schemas.usage import DISJOINT_COUNTS, TOKEN_COUNTS
from tallystream.streams.runtime.fold import Loss
from tallystream.streams.service.clock import utc

Row = tuple[bytes, bytes]

DETAILS = {
    Reason.TOO_LATE: "its hour ended longer than the lateness before its message was appended",
    Reason.FROM_THE_FUTURE: "it lies 24 h or more after the time its message was appended",
    Reason.CLOSED: "its hour has been removed from the state permanently",
    Reason.BEYOND_DEDUPE: "it is not newer than ids that its hour has forgotten, so it may have been counted already",
    Reason.ROW_FULL: "its hour has as many models, tiers and attributions as a row can hold",
}


def _letter(p: int, offset: int, index: int, append_ms: int, reason: Reason, detail: str, **fields: Any) -> Row:
    source = (topic_names.USAGE, str(p), str(offset), str(index))
    return dead_letter(source, reason, detail, utc(append_ms * 1_000_000), **fields)


def invalid_message(p: int, offset: int, append_ms: int, value: bytes | None, detail: str, index: int = 0) -> Row:
    """Return the letter of a message that cannot be counted, or of the event at `index` in it that cannot.

    Size and hash are of the whole message, so that it can be found again in the topic.
    """
    raw = value or b""
    digest = sha256(raw).hexdigest()
    return _letter(p, offset, index, append_ms, Reason.INVALID_MESSAGE, detail, size=len(raw), sha256=digest)


def refused_correction(p: int, offset: int, append_ms: int, correction: PriceCorrection, why: str) -> Row:
    """Return the letter of a price correction that does not fit its session-hour. It keeps no record: costs are
    computed again.
    """
    return _letter(
        p, offset, 0, append_ms, Reason.REPRICE_REFUSED, f"{why} (hour {correction.hour}, book {correction.book})",
        connection_id=correction.connection_id, session_id=correction.session_id,
    )  # fmt: skip


def records_lost(p: int, loss: Loss) -> Row:
    """Return the letter for lost usage messages, whether counted or not."""
    source = (topic_names.USAGE, str(p), f"{loss.first}-{loss.last}", "0")
    detail = f"partition {p} of the usage topic: {loss}"
    return dead_letter(source, Reason.RECORDS_LOST, detail, utc(max(0, loss.append_ms) * 1_000_000))


def refused_event(p: int, offset: int, append_ms: int, batch: ParsedBatch, index: int, reason: Reason) -> Row:
    """Return the letter of a valid event that must not be counted."""
    event = batch.raw[index]
    head = {"connection_id": batch.connection_id, "client": batch.client, "session_id": batch.session_id}
    record = {
        **head,
        "provider": batch.provider,
        "attribution": orjson.Fragment(batch.attribution),
        "events": [event],
    }
    detail = f"{DETAILS[reason]} (hour {hour_iso(hour_of(event['occurred_at']))})"
    return _letter(p, offset, index, append_ms, reason, detail, **head, record=record)


def conflicting(
    p: int, offset: int, append_ms: int, batch: ParsedBatch, event: Event, state: State, outcome: Outcome
) -> Row:
    """Return the letter of an event whose request another record tells with different counts: it holds both.

    Raises:
        ValueError: the state knows of no such record.

    """
    if state.other is None:
        raise ValueError("no conflict")
    place, counts, _, reported, _, inconsistent = state.other
    model, tier, speed, _, _ = list(state.buckets)[place]
    optional = {
        "service_tier": tier,
        "speed": speed,
        "reported_cost_usd": None if reported is None else to_usd(reported),
        "inconsistent": inconsistent or None,
    }
    known: dict[str, Any] = {
        "event_id": f"{event[0]:016x}",
        "model": model,
        **dict(zip(TOKEN_COUNTS, counts, strict=True)),
    }
    known |= {name: value for name, value in optional.items() if value is not None}
    new = batch.raw[event[13]]
    larger, other = (new, known) if outcome is REPLACED else (known, new)
    tokens, fewer = (sum(one.get(name, 0) for name in DISJOINT_COUNTS) for one in (larger, other))
    return _letter(
        p,
        offset,
        event[13],
        append_ms,
        Reason.CONFLICTING_COUNTS,
        f"two records of one request: {tokens} tokens counted, the other says {fewer}",
        connection_id=batch.connection_id,
        client=batch.client,
        session_id=batch.session_id,
        record={"counted": larger, "other": other},
    )
