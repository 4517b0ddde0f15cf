"""Recorded runs of agent SDKs and CLIs: their spans must give exactly the calls that the model API served.

The recordings are not part of the repository (folders `shared/captures-genai*` beside the checkout). Without them, the
same rules are tested on generated spans by tests/unit/clients/test_genai_*.py. There are two kinds of truth: `served`,
what the API answered, and `calls` with `told`, what the client's telemetry can report of it.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SHARED
from tests.support.otlp_spans import read_body

from tallystream.agents.pricing import Book
from tallystream.schemas.clients.genai import Call, Sighting, normalise
from tallystream.schemas.otlp import Encoding

FOLDERS = sorted(
    path.parent for path in SHARED.glob("captures-genai*/*/truth.json") if list(path.parent.glob("*.traces.*"))
)
pytestmark = pytest.mark.skipif(not FOLDERS, reason="there are no recordings beside this checkout")
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")

LOGS_COST = {"qwen-code", "claude-agent-sdk"}
"""These clients are priced by log events, so their spans must not give calls."""
NEVER_TOLD = {
    "aisdk-new": {"reasoning"},
    "agents-openinference-chat": {"cached", "reasoning"},
    "openllmetry-openai": {"reasoning"},
    "otelv2-default": {"cached", "reasoning"},
    "strands-openai": {"reasoning"},
}
"""Fields that a client does not send for some of its calls."""
NEVER_SENT = {"crewai-openinference": 6, "opencode-http": 1, "otelv2-default": 6}
"""Calls without usage in any span: not instrumented, or lost when the process ended."""
ESTIMATED = {"litellm-proxy": 2, "litellm-through-sdk": 1}
"""Streams that the caller aborted, for which LiteLLM reports estimated usage that looks like any other."""


def recorded(folder: Path) -> list[Sighting]:
    """Return the sightings of a folder's traces."""
    found = []
    for path in sorted(folder.glob("[0-9]*.traces.*")):
        raw = path.read_bytes()
        body = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        result = read_body(body, Encoding.JSON if path.suffix == ".json" else Encoding.PROTOBUF)
        assert not result.rejected, path
        found += [seen for pack in result.packs for seen in pack.sightings]
    return found


def counts(call: Call) -> dict[str, int]:
    """Return a call's tokens under the names of the truth file."""
    event = call.event
    written = event["cache_write_5m"] + event["cache_write_1h"]
    return {
        "input": event["input_uncached"] + event["cache_read"] + written,
        "cached": event["cache_read"],
        "cache_write": written,
        "output": event["output"],
        "reasoning": event["reasoning"],
    }


@each_folder
def test_recorded_calls_count_once_with_the_reported_tokens(folder: Path) -> None:
    """Compare call by call: each served call occurs once, with counts that are exact or were not reported."""
    truth = json.loads((folder / "truth.json").read_text())
    calls = normalise(recorded(folder))
    if truth["client"] in LOGS_COST:
        assert not calls
    elif "told" in truth:
        check_told(truth, calls)
    else:
        check_served(folder.name, truth, calls)


def check_told(truth: dict[str, Any], calls: list[Call]) -> None:
    """Compare totals by session and model."""
    got: dict[tuple[str | None, str], Counter[str]] = defaultdict(Counter)
    for call in calls:
        session = None if call.session_id.startswith("trace-") else call.session_id
        got[session, call.event["model"]].update({**counts(call), "calls": 1})
    want: dict[tuple[str | None, str], Counter[str]] = defaultdict(Counter)
    for told in truth["told"]:
        session = told["session_id"]
        # an id of the previous response is not a conversation id
        session = None if session is None or session.startswith("resp_") else session
        want[session, told["model"]].update(told["totals"])
    assert got == want


def check_served(name: str, truth: dict[str, Any], calls: list[Call]) -> None:
    """Compare with each answer of the model API."""
    served = [one for one in truth["served"] if one["usage"]]
    given_up = [one["usage_not_delivered"]["input"] for one in truth["served"] if one.get("usage_not_delivered")]
    estimates = 0
    for call in calls:
        tokens = counts(call)
        ids = {seen.response_id for seen in call.members}
        found = next((one for one in served if one["response_id"] in ids), None) or next(
            (one for one in served if one["usage"]["input"] == tokens["input"]), None
        )
        if found is None:
            # only an aborted stream, whose input is billed, or LiteLLM's own estimate
            estimates += tokens["input"] not in given_up or tokens["output"] > 1
            continue
        served.remove(found)
        for field, count in tokens.items():
            if field in NEVER_TOLD.get(name, ()) and not count:
                continue
            assert count == (found["usage"].get(field) or 0), (name, field, found["response_id"])
        assert call.event["model"] in (found["response_model"], found["request_model"])
    assert len(served) == NEVER_SENT.get(name, 0)
    assert estimates == ESTIMATED.get(name, 0)


@each_folder
def test_order_and_repetition_of_a_recording_do_not_matter(folder: Path) -> None:
    """Repeats and the order of requests must not change anything."""
    seen = recorded(folder)
    once = [(call.event, call.session_id) for call in normalise(seen)]
    assert [(call.event, call.session_id) for call in normalise([*reversed(seen), *seen])] == once


@each_folder
def test_price_book_has_prices_for_recorded_calls(folder: Path) -> None:
    """Providers and models must have names that the price book knows."""
    book = Book()
    for call in normalise(recorded(folder)):
        event = call.event
        plain = (event[name] for name in ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output"))
        priced = book.price(call.provider, event["model"], None, event["occurred_at"], *plain)
        assert priced is not None, (call.provider, event["model"])
