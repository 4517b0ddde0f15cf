"""Which records the sink keeps of its topics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from tallystream.agents.port_sink.documents.feeds import feeds
from tallystream.agents.port_sink.state.sent import SWEEP, TERM, SentIndex
from tallystream.schemas import keys
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("t")
FEEDS = {feed.topic: feed for feed in (*feeds(TOPICS), SentIndex.feed(TOPICS.port_sent.name))}
POISON = (b"\xffgarbage", b"{not json", b"", b"[]", b"null", b"7", b'"text"', b"{}", b'{"connection_id":"x"}')
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
"""The error for an unreadable record; any other exception ends the sink."""


def record(key: bytes | None, value: bytes | None) -> Any:
    return SimpleNamespace(key=key, value=value, offset=5, partition=0, timestamp=1)


@pytest.mark.parametrize("value", POISON)
@pytest.mark.parametrize("topic", FEEDS)
def test_invalid_messages_are_skipped(topic: str, value: bytes) -> None:
    for key in (b"poison", b"codex-7f3a", b"a|b|c", b"entity|a|b", b"plan|a|b", b"", None):
        with pytest.raises(UNREADABLE):
            list(FEEDS[topic].rows(record(key, value)))


CONNECTION = {
    "connection_id": "codex-7f3a", "provider": "codex", "name": "laptop", "created_at": "2026-11-01T00:00:00Z",
    "ingest": [{"sha256": "ab" * 32}],
}  # fmt: skip
ACTIVITY = {
    "connection_id": "codex-7f3a", "signal": "logs", "gateway": "g", "last_synced_at": "2026-11-21T14:10:00Z",
    "requests": 1, "records": 2,
}  # fmt: skip
SENT = {
    "blueprint": "b", "identifier": "i|1", "digest": "ab" * 12, "source": {"kind": "session", "key": "k"}, "order": 1,
    "at_ms": None, "writer": "ab12cd34ef56",
}  # fmt: skip
PLAN = {
    "writer": "ab12cd34ef56", "slot": 3, "until_ms": 9,
    "entities": [{"blueprint": "b", "identifier": "i", "source": {"kind": "session", "key": "k"}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        (TOPICS.connections.name, b"codex-7f3a", CONNECTION),
        (TOPICS.activity.name, b"codex-7f3a|logs|g", ACTIVITY),
        (TOPICS.port_sent.name, keys.join("entity", "b", "i|1"), SENT),
        (TOPICS.port_sent.name, b"plan|ab12cd34ef56|3", PLAN),
        (TOPICS.port_sent.name, TERM, {"writer": "ab12cd34ef56"}),
        (TOPICS.port_sent.name, SWEEP, {"blueprint": None}),
    ],
)
def test_valid_records_are_kept_under_their_own_key(topic: str, key: bytes, value: dict[str, Any]) -> None:
    raw = orjson.dumps(value)
    (row,) = FEEDS[topic].rows(record(key, raw))
    assert row.key.endswith(key)
    assert (row.version, row.value) == ((0, 5), raw)
    with pytest.raises(ValueError, match="not the key"):
        list(FEEDS[topic].rows(record(key + b"x", raw)))
    (tombstone,) = FEEDS[topic].rows(record(key, None))
    assert tombstone.value is None
