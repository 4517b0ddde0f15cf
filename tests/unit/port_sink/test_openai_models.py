"""`openai-model`: what becomes of a model that OpenAI lists no more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from tests.support.stored_rows import StoredRows

from tallystream.agents.port_sink.documents.base import Document
from tallystream.agents.port_sink.documents.models import KIND, OpenAIModelDocuments
from tallystream.agents.port_sink.mapping.identifiers import encode
from tallystream.schemas import keys
from tallystream.streams.kafka.global_table import StoredRow

LIST = b"R|" + keys.join("/models", "0" * 16, "current")
BLUEPRINT = "openai_model"
FINE = "ft:gpt-4o:acme:release notes:9x"
DAY = 86_400_000


def at(day: int) -> int:
    return int(datetime(2026, 11, day, tzinfo=UTC).timestamp() * 1000)


class Rows(StoredRows):
    """Rows in memory, and what the sink would note as sent."""

    def __init__(self) -> None:
        super().__init__()
        self.models = OpenAIModelDocuments([BLUEPRINT])

    def put(self, key: bytes, value: Any, version: int = 0) -> None:
        self.rows[key] = StoredRow((version, 0), 0, value if isinstance(value, bytes) else orjson.dumps(value))

    def polled(self, day: int, *names: str) -> None:
        listed = [{"id": name, "object": "model", "created": 7, "owned_by": "openai"} for name in names]
        self.put(
            LIST,
            {"resource": "/models", "query": "0" * 16, "params": {}, "bucket": "current", "starts_at": None,
             "ends_at": None, "polled_at": f"2026-11-{day:02}T00:00:00Z", "digest": "0" * 16, "rows": listed,
             "decimals": []},
            version=at(day),
        )  # fmt: skip

    def used(self, name: str, hour: str = "2026-11-05T10:00:00Z") -> None:
        self.put(b"M|" + keys.join("openai", name), hour.encode())

    def note(self, name: str, kind: str, key: bytes, order: int = 0, at_ms: int | None = None) -> None:
        source = {"kind": kind, "key": key.decode()}
        self.put(
            b"P|" + keys.join("entity", BLUEPRINT, encode(name)), {"source": source, "order": order, "at_ms": at_ms}
        )

    def document(self, name: str) -> Document | None:
        return self.models.build(self, keys.join(name))

    def sent(self) -> dict[str, tuple[Any, Any, int | None]]:
        """Build every model as a sweep does, note it as sent, and return listed, since and age by model."""
        found = {}
        for key in list(self.models.keys(self)):
            (name,) = keys.split(key)
            if (document := self.document(name)) is None:
                continue
            (record,) = document.records
            found[name] = record["listed"], record["unlisted_since"], document.at_ms
            self.note(name, KIND, key, document.order, document.at_ms)
        return found


def test_model_that_is_not_listed_any_more_keeps_the_time_it_was_missed_first() -> None:
    rows = Rows()
    rows.polled(1, "gpt-5", FINE)
    assert rows.sent() == {"gpt-5": (True, None, None), FINE: (True, None, None)}
    for day in (2, 3):
        rows.polled(day, "gpt-5")
        assert rows.sent() == {"gpt-5": (True, None, None), FINE: (False, "2026-11-02T00:00:00Z", at(2))}
    rows.polled(4, "gpt-5", FINE)
    assert rows.sent()[FINE] == (True, None, None)
    rows.polled(5)
    assert rows.sent()[FINE] == (False, "2026-11-05T00:00:00Z", at(5))


def test_models_of_sessions_age_with_their_last_use() -> None:
    rows = Rows()
    rows.used("o3")
    assert rows.sent() == {"o3": (None, None, None)}, "nothing is said of a list that was never polled"
    rows.polled(2, "gpt-5")
    assert rows.sent()["o3"] == (False, "2026-11-02T00:00:00Z", at(5) + 11 * DAY // 24)
    rows.used("o3", "2026-11-09T23:00:00Z")
    assert rows.sent()["o3"] == (False, "2026-11-02T00:00:00Z", at(10))
    rows.used("o3", "")
    assert rows.sent()["o3"][2] is None, "an earlier release did not note the hour: the rule must not reach the model"


def test_deleted_model_stays_away_until_it_is_listed_or_used_again() -> None:
    """The retention rule forgets what it deletes; the next list must not bring it back as if it had just vanished."""
    rows = Rows()
    rows.polled(1, FINE)
    rows.used("o3", "2025-01-01T00:00:00Z")
    rows.sent()
    rows.polled(2)
    rows.sent()
    for name in (FINE, "o3"):
        del rows.rows[b"P|" + keys.join("entity", BLUEPRINT, encode(name))]
    rows.polled(20)
    assert rows.document(FINE) is None
    again = rows.document("o3")
    assert again is not None
    assert again.at_ms is not None
    assert again.at_ms < at(1), "as old as its last use, so that the rule keeps it away"


def test_models_sent_by_an_earlier_release_are_known() -> None:
    rows = Rows()
    rows.note(FINE, "/models", LIST[2:], order=at(1) * 1000)
    rows.note("o3", "model", keys.join("openai", "o3"))
    rows.note("other", "session", b"c|s")
    rows.polled(2, "gpt-5")
    assert rows.sent() == {
        "gpt-5": (True, None, None),
        FINE: (False, "2026-11-02T00:00:00Z", at(2)),
        "o3": (False, "2026-11-02T00:00:00Z", at(2)),
    }


def test_list_concerns_every_model_and_a_use_only_its_own() -> None:
    rows = Rows()
    rows.polled(1, "gpt-5", FINE)
    rows.sent()
    rows.polled(2, "gpt-5")
    assert set(rows.models.affected(rows, LIST)) == {keys.join("gpt-5"), keys.join(FINE)}
    assert list(rows.models.affected(rows, b"M|" + keys.join("openai", "a|b"))) == [keys.join("a|b")]
    assert list(rows.models.affected(rows, b"M|" + keys.join("anthropic", "claude"))) == []
    assert list(rows.models.affected(rows, b"R|" + keys.join("/usage", "0", "2026-11-01"))) == []
