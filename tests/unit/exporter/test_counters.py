"""The exporter's counters equal the newest rows and never decrease, in any order and despite restarts and retention."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.disks import small_disk
from tests.support.examples import examples

from tallystream.exporter.counters import CounterLedger, PublishedCounters
from tallystream.exporter.labels import (
    COUNTS,
    DIMENSIONS,
    FIELDS,
    MAX_AGENTS,
    MAX_CONNECTIONS,
    MAX_MODELS,
    MAX_SERIES,
    Label,
    Labels,
    parts,
)
from tallystream.schemas.errors import UnfitError
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.money import to_usd
from tallystream.schemas.rows import SessionHourCost
from tallystream.streams.kafka.follower import FollowedBatch, FollowerPosition

NOW = 495_000
TOPIC = "rows"


@dataclass
class Record:
    key: bytes
    value: bytes | None
    offset: int = 0
    timestamp: int = 0


def row(session: str, version: int, requests: int, *, hour: int = NOW, model: str = "m", pico: int = 0) -> Record:
    """Return a row with `requests` of one model; `pico` is its cost."""
    counts = dict.fromkeys((*COUNTS, "total_tokens", "late_events"), 0) | {"requests": requests, "output": requests * 7}
    bucket = counts | {
        "cost_usd": to_usd(pico), "reported_cost_usd": None, "model": model, "service_tier": None, "speed": None,
        "book": "b", "attribution": {"team": "t"},
    }  # fmt: skip
    document = {
        "connection_id": "c", "client": "codex", "provider": "openai", "session_id": session, "hour": hour_iso(hour),
        "version": [0, version], "duplicates": 0, "buckets": [bucket],
    }  # fmt: skip
    SessionHourCost.model_validate(document)
    return Record(f"c|{session}|{hour_iso(hour)}".encode(), orjson.dumps(document))


def batch(*records: Record, after: int = 1, partition: int = 0) -> FollowedBatch:
    found: Any = records
    return FollowedBatch(TOPIC, partition, found, FollowerPosition(after, 0))


def totals(published: PublishedCounters, kind: str = "usage") -> dict[str, int]:
    """Return the sums over all labels of a kind, by field."""
    chosen = [sums for label, sums in published.sums.items() if label.kind == kind]
    return {name: sum(sums[place] for sums in chosen) for place, name in enumerate(FIELDS)}


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 9),
        st.sampled_from(("add", "restart", "tombstone", "again")),
        st.sampled_from(("m", "n")),
    ),
    max_size=30,
)


@examples(60)
@given(steps)
def test_counters_equal_the_newest_rows_in_any_order(
    commands: list[tuple[str, int, str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = CounterLedger(Path(folder) / "l")
        newest: dict[str, int] = {}
        sent: list[Record] = []
        shown: dict[Label, tuple[int, ...]] = {}
        for session, version, what, model in commands:
            if what == "restart":
                ledger.close()
                ledger = CounterLedger(Path(folder) / "l")
            elif what == "tombstone":
                ledger.apply([batch(Record(f"c|{session}|{hour_iso(NOW)}".encode(), None))], NOW)
            elif what == "again":
                ledger.apply([batch(*sent)], NOW)
            else:
                # Rows only grow with their version, whichever model the new requests are for.
                sent.append(
                    row(session, version, version + 1, pico=(version + 1) * 3, model="m" if version < 5 else model)
                )
                newest[session] = max(version, newest.get(session, -1))
                ledger.apply([batch(sent[-1])], NOW)
            published = ledger.published
            for label, sums in shown.items():
                assert all(new >= old for new, old in zip(published.sums[label], sums, strict=True)), "a counter fell"
            shown = dict(published.sums)
            wanted = sum(version + 1 for version in newest.values())
            exact = {
                name: sum(sums[at] for label, sums in ledger._exact.items() if label.kind == "usage")
                for at, name in enumerate(FIELDS)
            }
            assert exact["requests"] == wanted
            assert exact["output"] == 7 * wanted
            assert exact["cost_pico"] == 3 * wanted
            assert sum(ledger.published.hours.values()) == 3 * wanted
            if all(model == "m" for _, version, _, model in commands if version >= 5):
                assert totals(published) == exact
                assert all(totals(published, dimension) == exact for dimension in DIMENSIONS)
        ledger.close()


def test_counter_does_not_decrease_after_a_correction_downwards(tmp_path: Path) -> None:
    ledger = CounterLedger(tmp_path / "l")
    assert totals(ledger.apply([batch(row("a", 1, 10, pico=100))], NOW))["cost_pico"] == 100
    assert totals(ledger.apply([batch(row("a", 2, 10, pico=40))], NOW))["cost_pico"] == 100
    assert totals(ledger.apply([batch(row("b", 1, 1, pico=50))], NOW))["cost_pico"] == 100
    assert totals(ledger.apply([batch(row("c", 1, 1, pico=50))], NOW))["cost_pico"] == 140
    assert sum(ledger.published.hours.values()) == 140, "hours follow their rows"
    ledger.close()


def test_money_beyond_64_bits_stays_exact(tmp_path: Path) -> None:
    much = 987_654_321 * 10**12 + 1
    ledger = CounterLedger(tmp_path / "l")
    ledger.apply([batch(row("a", 1, 1, pico=much), row("b", 1, 1, pico=much))], NOW)
    ledger.close()
    again = CounterLedger(tmp_path / "l")
    assert totals(again.published)["cost_pico"] == 2 * much
    again.close()


def test_positions_and_counters_are_committed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = CounterLedger(tmp_path / "l")
    ledger.apply([batch(row("a", 1, 10), after=5)], NOW)
    monkeypatch.setattr(CounterLedger, "_forget", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        ledger.apply([batch(row("a", 2, 11), row("b", 1, 1, model="new"), after=9)], NOW)
    assert totals(ledger.published)["requests"] == 10
    assert ledger.positions(TOPIC) == {(TOPIC, 0): FollowerPosition(5, 0)}
    monkeypatch.undo()
    assert totals(ledger.apply([batch(row("a", 2, 11), row("b", 1, 1, model="new"), after=9)], NOW))["requests"] == 12
    ledger.close()
    again = CounterLedger(tmp_path / "l")
    assert again.positions(TOPIC) == {(TOPIC, 0): FollowerPosition(9, 0)}
    assert totals(again.published)["requests"] == 12
    again.close()


def test_invalid_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    ledger = CounterLedger(tmp_path / "l")
    bad = row("a", 1, 1)
    assert bad.value is not None
    ledger.apply(
        [
            batch(
                Record(b"k1", b"{}"),
                Record(b"k2", b'{"version":[0,1]}'),
                Record(b"k3", b"\xff"),
                Record(b"k4", bad.value.replace(b'"requests":1', b'"requests":-1')),
                Record(b"k5", bad.value.replace(b'"cost_usd":"0"', b'"cost_usd":"much"')),
                row("fine", 1, 1),
            )
        ],
        NOW,
    )
    assert ledger.published.skipped == 5
    assert totals(ledger.published)["requests"] == 1
    ledger.close()


def test_rows_removed_by_retention_are_forgotten_and_counters_kept(tmp_path: Path) -> None:
    ledger = CounterLedger(tmp_path / "l")
    ledger.apply([batch(row("a", 1, 10, pico=5))], NOW)
    later = NOW + 402 * 24
    ledger.apply([batch(row("b", 1, 1, hour=later))], later)
    assert ledger._db.execute("SELECT count(*) FROM rows").fetchone() == (1,)
    assert totals(ledger.published)["requests"] == 11
    assert ledger.published.hours == {}
    ledger.apply([batch(row("a", 1, 10, pico=5))], later)  # a very old row, seen again
    assert totals(ledger.published)["requests"] == 11
    ledger.close()


def test_damaged_counter_file_is_reported_clearly(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(b"this is no database, however long it may be " * 99)
    with pytest.raises(UnfitError, match="cannot be read"):
        CounterLedger(path)


def test_full_disk_is_reported_as_such_and_the_counters_go_on_with_room(tmp_path: Path) -> None:
    here = tmp_path / "disk"
    with small_disk(here, 1):
        ledger = CounterLedger(here / "counters.sqlite")
        ledger.apply([batch(row("first", 1, 5))], NOW)
        filler = here / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * 512):
                pass
        rows = [row(f"session-{number}", 1, 1) for number in range(500)]
        with pytest.raises(sqlite3.OperationalError, match="disk is full"):
            ledger.apply([batch(*rows, after=2)], NOW)
        assert totals(ledger.published)["requests"] == 5
        filler.unlink()
        assert totals(ledger.apply([batch(*rows, after=2)], NOW))["requests"] == 505
        ledger.close()


def test_labels_are_bounded_and_further_values_become_other() -> None:
    labels = Labels()
    for number in range(3 * MAX_SERIES):
        labels.usage(f"c{number % (2 * MAX_CONNECTIONS)}", "codex", f"model-{number}")
    first = labels.usage("c0", "codex", "model-0")
    assert first == Label("usage", "c0", "codex", "model-0")
    assert labels.usage("new", "codex", "newer") == Label("usage", "other", "codex", "other")
    assert len(labels._models) <= MAX_MODELS + 1
    assert len(labels._connections) <= MAX_CONNECTIONS + 1
    assert len(labels._usage) <= MAX_SERIES + MAX_CONNECTIONS + 1
    assert labels.usage("c0", "codex", "x\n\x1b[31m" + "y" * 500).model.isprintable()
    assert labels.of("team", None).first == "none"
    for number in range(3 * MAX_AGENTS):
        labels.of("agent", f"agent-{number}")
    assert labels.of("agent", "newer") == Label("agent", "other")


def test_row_is_split_by_model_and_by_dimension() -> None:
    document = orjson.loads(row("a", 1, 4, pico=8).value or b"")
    document["buckets"].append(document["buckets"][0] | {"model": "n", "cost_usd": None, "attribution": {"agent": "a"}})
    found = parts(document, Labels())
    cost = {label: Decimal(sums[-1]) for label, sums in found.items()}
    assert cost == {
        Label("usage", "c", "codex", "m"): 8, Label("usage", "c", "codex", "n"): 0,
        Label("team", "t"): 8, Label("team", "none"): 0, Label("agent", "none"): 8, Label("agent", "a"): 0,
        Label("billing", "none"): 8,
    }  # fmt: skip
