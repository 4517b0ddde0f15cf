"""Recorded runs of real clients: normalising their bodies must give exactly what the model API served.

The recordings are not part of the repository (a folder `shared/captures` beside the checkout). Without them, the same
rules are tested on generated bodies by tests/unit/clients.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

import pytest
from tests.conftest import SHARED
from tests.support import oracle

from tallystream.agents.pricing import Book
from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.money import to_pico
from tallystream.schemas.otlp import Encoding, detect_signal, inspect
from tallystream.schemas.packing import messages
from tallystream.schemas.usage import UsageBatch

Totals = dict[tuple[str, str], dict[str, int]]

NEVER_SENT = {
    "codex-binary-incomplete": {"input": 2100, "cached": 1792, "output": 4096, "reasoning": 4000, "responses": 1},
    "codex-json-failexit": {"input": 2000, "cached": 1792, "output": 72, "reasoning": 32, "responses": 1},
    "codex-json-metricsonly": {"input": 1702, "cached": 768, "output": 17, "reasoning": 3, "responses": 2},
}
"""Usage that the client itself never sent, so that it could not be counted."""

FOLDERS = sorted(path.name for path in (SHARED / "captures").glob("*-*") if path.is_dir())
pytestmark = pytest.mark.skipif(not FOLDERS, reason="there are no recordings beside this checkout")
each_folder = pytest.mark.parametrize("name", FOLDERS)


def bodies(name: str) -> list[tuple[str, bytes, Encoding]]:
    """Return (signal, body, encoding) of each request, in order."""
    found = []
    for path in sorted((SHARED / "captures" / name).glob("[0-9]*.*.*")):
        _, signal, kind = path.name.split(".")
        if signal != "headers":
            raw = path.read_bytes()
            body = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
            found.append((signal, body, Encoding.JSON if kind == "json" else Encoding.PROTOBUF))
    return found


def results(name: str) -> list[LogsResult]:
    """Return the result of each logs request."""
    return [normalise_logs(body, encoding) for signal, body, encoding in bodies(name) if signal == "logs"]


def truth(name: str) -> tuple[dict[str, Any], Totals]:
    """Return the truth file, and its totals less what the client never sent."""
    file = json.loads((SHARED / "captures" / name / "truth.json").read_text())
    totals = {(found["session_id"], found["model"]): dict(found["totals"]) for found in file["totals"]}
    assert (name in NEVER_SENT) == ("expect_diff" in file)
    for field, missing in NEVER_SENT.get(name, {}).items():
        ((_, counts),) = totals.items()
        counts[field] -= missing
    return file, {key: counts for key, counts in totals.items() if counts["responses"]}


def in_words_of(client: str, event: dict[str, Any]) -> dict[str, int]:
    """Return an event's counts under the names of the client's truth file."""
    written = event["cache_write_5m"] + event["cache_write_1h"]
    whole = event["input_uncached"] + event["cache_read"] + (written if client == "codex" else 0)
    if client == "claude":
        counts = {"cache_read": event["cache_read"], "cache_creation": written, "output": event["output"]}
        return counts | {"input": event["input_uncached"], "responses": 1}
    if client == "codex":
        counts = {"cache_write": written, "output": event["output"], "reasoning": event["reasoning"]}
    else:
        thoughts = event["reasoning"]
        counts = {"output": event["output"] - thoughts, "thoughts": thoughts, "tool": event["tool"]}
    return counts | {"input": whole, "cached": event["cache_read"], "responses": 1}


def totals(client: str, found: list[LogsResult]) -> Totals:
    """Add events up by (session, model), each id once."""
    sums: Totals = defaultdict(Counter)
    seen = set()
    for result in found:
        for pack in result.packs:
            assert pack.client == client
            for event in pack.events:
                if event["event_id"] not in seen:
                    seen.add(event["event_id"])
                    key = pack.session_id, event["model"]
                    for field, count in in_words_of(client, event).items():
                        sums[key][field] += count
    return {key: dict(counts) for key, counts in sums.items()}


@each_folder
def test_recordings_add_up_to_the_served_tokens_without_rejects(name: str) -> None:
    file, wanted = truth(name)
    found = results(name)
    assert totals(file["client"], found) == wanted
    assert [lost for result in found for lost in result.rejected] == []


@each_folder
def test_official_otlp_classes_find_the_same_totals(name: str) -> None:
    """This checks the reader that judges simulated fleets (tests/support/oracle.py) against the real clients."""
    file, wanted = truth(name)
    types = {Encoding.JSON: oracle.JSON, Encoding.PROTOBUF: "application/x-protobuf"}
    found = {
        used
        for signal, body, encoding in bodies(name)
        if signal == "logs"
        for used in oracle.usage(oracle.read_logs(body, types[encoding]))
    }
    sums: Totals = defaultdict(Counter)
    for used in found:
        assert used.client == file["client"]
        for field, count in in_words_of(used.client, asdict(used)).items():
            sums[used.session_id, used.model][field] += count
    assert {key: dict(counts) for key, counts in sums.items()} == wanted


@pytest.mark.parametrize("name", [name for name in FOLDERS if name.startswith("claude-")])
def test_price_of_each_request_equals_claude_codes_own_estimate(name: str) -> None:
    """Two independent computations must agree to the pico-dollar; `normal` speed is the standard one."""
    book, priced = Book(), 0
    for result in results(name):
        for pack in result.packs:
            for e in pack.events:
                counts = (e["input_uncached"], e["cache_read"], e["cache_write_5m"], e["cache_write_1h"], e["output"])
                ours = book.price(pack.provider, e["model"], None, e["occurred_at"], *counts, speed=e["speed"])
                assert ours == to_pico(e["reported_cost_usd"])
                priced += 1
    assert priced > 0


@each_folder
def test_recording_sent_twice_counts_once(name: str) -> None:
    file, wanted = truth(name)
    once, twice = results(name), results(name)
    assert once == twice
    assert totals(file["client"], once + twice) == wanted


@each_folder
def test_every_message_is_a_valid_usage_batch(name: str) -> None:
    for result in results(name):
        for pack in result.packs:
            sent = [UsageBatch.model_validate_json(value) for _, value in messages(pack, "lab-0001", lambda _: "u_0")]
            assert [event.model_dump(exclude_none=True) for batch in sent for event in batch.events] == pack.events


@each_folder
def test_body_is_refused_at_the_endpoint_of_another_signal(name: str) -> None:
    for signal, body, encoding in bodies(name):
        assert detect_signal(body, encoding) == signal
        assert inspect(body, encoding, signal) > 0
        if signal != "logs":
            with pytest.raises(InvalidBodyError, match=f"holds {signal}"):
                normalise_logs(body, encoding)


@each_folder
def test_messages_contain_no_content(name: str) -> None:
    """Words of the recordings' scripted prompts and tools, which do not occur in ids or counts."""
    words = ("Please", "look around", "echo ", "[REDACTED]", "<REDACTED>", "Process exited", "scripted")
    for signal, body, encoding in bodies(name):
        if signal == "logs":
            result = repr(normalise_logs(body, encoding))
            assert not [word for word in words if word in result]


def test_recordings_contain_content() -> None:
    """Shows that the test above can fail."""
    whole = b"".join(body for name in FOLDERS for signal, body, _ in bodies(name) if signal == "logs")
    assert all(word in whole for word in (b"echo ", b"[REDACTED]", b"Process exited"))


@each_folder
def test_renamed_fields_in_recordings_are_reported_as_unrecognised(name: str) -> None:
    """Every event that counts must become a dead letter if its name changes by a letter."""
    names = {b"codex.sse_event": b"codex.sse_evenT", b'"api_request"': b'"api_requesT"'}
    names |= {b"\x0bapi_request": b"\x0bapi_requesT", b"gemini_cli.api_response": b"gemini_cli.api_responsE"}
    for signal, body, encoding in bodies(name):
        if signal == "logs":
            before = normalise_logs(body, encoding)
            for old, new in names.items():
                body = body.replace(old, new)
            after = normalise_logs(body, encoding)
            assert after.packs == []
            assert len(after.rejected) == sum(len(pack.events) for pack in before.packs)


def test_recordings_are_unchanged() -> None:
    assert Counter(name.split("-")[0] for name in FOLDERS) == {"codex": 25, "claude": 11, "gemini": 4}
    assert set(NEVER_SENT) <= set(FOLDERS)
