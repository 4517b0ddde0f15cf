"""The rows that the worker writes must match their published JSON Schemas and the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from tallystream.agents.session_cost import dead_letters, hour_state
from tallystream.agents.session_cost.correction import correction_of
from tallystream.agents.session_cost.hours import HourSums
from tallystream.agents.session_cost.parse import parse
from tallystream.schemas import keys
from tallystream.schemas.corrections import PriceCorrection, PriceMove
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.rows import HourCost, SessionHourCost

SCHEMAS = Path(__file__).parents[2] / "schemas" / "json"
KEY = keys.join("codex-7f3a", "s|1", "2026-11-21T14:00:00Z")
EVENTS = [
    {"event_id": f"{n:016x}", "occurred_at": 1_795_269_600_000_000_000, "model": "o3", "output": 5, **more}
    for n, more in enumerate(({}, {"service_tier": "flex"}, {"speed": "fast"}, {"reported_cost_usd": "0.1"}))
]
BATCH = {
    "connection_id": "codex-7f3a",
    "client": "codex",
    "provider": "openai",
    "session_id": "s|1",
    "attribution": {"team": "a|b", "user": "u_0123456789abcdef"},
    "events": EVENTS,
}


def written() -> list[tuple[str, type[BaseModel], bytes]]:
    """Return one row or letter of every kind, with the name of its schema."""
    batch = parse(keys.join("codex-7f3a", "s|1"), orjson.dumps(BATCH))
    state = hour_state.State("codex", "openai")
    for event, cost in zip(batch.events, (None, 0, 7, 10**30), strict=True):
        hour_state.apply(state, event, cost, "book-1", batch.attribution, late=True)
    state.version = 3
    hours = HourSums(2, lambda _: None)
    hours.carry({KEY: state})
    hour_rows, _ = hours.take()
    refused = [
        dead_letters.refused_event(2, 9, 1_795_269_600_000, batch, 1, reason)
        for reason in (Reason.TOO_LATE, Reason.FROM_THE_FUTURE, Reason.CLOSED, Reason.BEYOND_DEDUPE, Reason.ROW_FULL)
    ]
    invalid = dead_letters.invalid_message(2, 9, 1_795_269_600_000, b"?", "the message is not JSON")
    row = SessionHourCost.model_validate_json(hour_state.to_row(KEY, state))
    move = PriceMove(was=row.buckets[:1], cost_usd="0.000001", unpriced_requests=0)
    correction = correction_of(row, "book-2", [move], {1: "0.000001", 2: None})
    late = dead_letters.refused_correction(2, 9, 1_795_269_600_000, correction, "its requests have changed")
    return [
        ("session-hour-cost", SessionHourCost, hour_state.to_row(KEY, state)),
        ("session-hour-cost", SessionHourCost, hour_state.to_row(KEY, hour_state.State("codex", "openai"))),
        *(("hour-cost", HourCost, row) for _, row in hour_rows),
        *(("dead-letter", DeadLetter, value) for _, value in (*refused, invalid, late)),
        ("price-correction", PriceCorrection, correction.model_dump_json().encode()),
    ]


@pytest.mark.parametrize(("name", "model", "value"), written())
def test_written_rows_match_their_schema_and_model(name: str, model: type[BaseModel], value: bytes) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    Draft202012Validator(schema).validate(json.loads(value))
    model.model_validate_json(value, strict=True)


def test_money_and_nulls_are_written_as_documented() -> None:
    row: dict[str, Any] = json.loads(written()[0][2])
    by_tier = {(b["service_tier"], b["speed"], b["reported_cost_usd"]): b["cost_usd"] for b in row["buckets"]}
    assert by_tier == {
        (None, None, "0.1"): str(10**18),
        ("flex", None, None): "0",
        (None, "fast", None): "0.000000000007",
    }
