"""Recorded runs of real clients: what their metrics and spans tell of is exactly what the model API served.

The recordings are not part of the repository (a folder `shared/captures` beside the checkout). Without them, the same
rules are tested on generated bodies by tests/unit/clients/test_witnesses.py.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import SHARED
from tests.support.ledger_rows import Record

from tallystream.agents.coverage import CountedHour, CoverageRow, TokenSides, coverage
from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.queries.coverage import CoverageRange, witnessed_hours
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase
from tallystream.agents.ledger.witnesses import apply
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.usage import DISJOINT_COUNTS
from tallystream.schemas.witness import messages
from tallystream.streams.gateway.ingest import decode
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

FOLDERS = sorted(path for path in (SHARED / "captures").glob("*-*") if path.is_dir())
pytestmark = pytest.mark.skipif(not FOLDERS, reason="there are no recordings beside this checkout")
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)

NO_WITNESS = {
    "codex-binary-exporter-errors": "it sends only logs",
    "codex-binary-incomplete": "its turn fails, which no signal tells of",
    "codex-binary-logsonly": "it sends only logs",
    "codex-json-failexit": "its turn fails, and its process ends before it sends metrics",
    "codex-old-binary-tools": "version 0.80 has no such spans and metrics",
    "codex-old-json-basic": "version 0.80 has no such spans and metrics",
}
ONLY_METRICS = {"codex-binary-long", "codex-json-metricsonly", "codex-json-tui-cost"}
"""Folders of Codex without spans: no session is named."""


def decoded(folder: Path, *, logs: bool = True) -> tuple[list[CountedHour], list[tuple[int, Record]]]:
    """Return what was counted, each event once, and the messages of witnesses, all bodies sent twice."""
    events: dict[tuple[str, str, str], tuple[int, TokenSides]] = {}
    records: list[tuple[int, Record]] = []
    for path in [*sorted(folder.glob("[0-9]*.*.*"))] * 2:
        _, signal, kind = path.name.split(".")
        if signal == "headers":
            continue
        raw = path.read_bytes()
        body = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        found = decode(body, Encoding.JSON if kind == "json" else Encoding.PROTOBUF, None)
        assert not found.left_out
        for witness in found.witnesses:
            assert found.signal != "logs"
            records += [(0, Record(key, value, len(records))) for key, value in messages(witness, "c-1")]
        for pack in found.logs.packs if found.logs is not None and logs else ():
            for event in pack.events:
                output = event["output"]
                tokens = TokenSides(sum(event[name] for name in DISJOINT_COUNTS) - output, output)
                hour = event["occurred_at"] // HOUR_NS
                events[pack.client, pack.session_id, event["event_id"]] = (hour, tokens)
    counted = [
        CountedHour("c-1", client, session, hour, tokens) for (client, session, _), (hour, tokens) in events.items()
    ]
    return counted, records


def rows(counted: list[CountedHour], records: list[tuple[int, Record]], directory: Path, by: str) -> list[CoverageRow]:
    """Compare, with the witnesses as the ledger keeps them."""
    database = SQLiteDatabase(directory / "ledger.db")
    Writer(database, Topics("captures")).claim(Identity("cluster", "captures", {}))
    apply(database, records)
    witnessed = list(witnessed_hours(database, CoverageRange(0, 10**6)))
    database.close()
    return coverage(counted, witnessed, "session" if by == "session" else "connection")


def served(folder: Path) -> dict[str, TokenSides]:
    """Return what the model API served, by session."""
    found: dict[str, TokenSides] = defaultdict(TokenSides)
    for one in json.loads((folder / "truth.json").read_text())["totals"]:
        counts = one["totals"]
        sent = sum(counts.get(name, 0) for name in ("input", "cache_read", "cache_creation", "tool"))
        received = counts["output"] + counts.get("thoughts", 0)
        found[one["session_id"]] = found[one["session_id"]].plus(TokenSides(sent, received))
    return dict(found)


def each(found: list[CoverageRow]) -> Iterator[tuple[str, CoverageRow]]:
    return ((row.session_id or "", row) for row in found)


@each_folder
def test_witness_is_what_the_model_api_served(folder: Path, tmp_path: Path) -> None:
    counted, records = decoded(folder)
    by_session = dict(each(rows(counted, records, tmp_path, "session")))
    if folder.name in NO_WITNESS:
        assert not records
        assert all(row.seen is None for row in by_session.values())
        return
    truth = served(folder)
    (whole,) = rows(counted, records, tmp_path, "connection")
    assert whole.witnessed.total == sum(tokens.total for tokens in truth.values())
    if folder.name in ONLY_METRICS:
        assert all(row.witness is None for session, row in by_session.items() if session)
        assert sum(row.missing for row in by_session.values()) == whole.missing
        return
    assert {session: row.witnessed for session, row in by_session.items()} == truth
    assert {str(row.seen) for row in by_session.values()} == {"1.0000"}
    assert (str(whole.seen), whole.missing) == ("1.0000", 0)


@each_folder
def test_dropped_logs_are_missing_to_the_token(folder: Path, tmp_path: Path) -> None:
    _, records = decoded(folder, logs=False)
    found = rows([], records, tmp_path, "connection")
    if folder.name in NO_WITNESS:
        assert found == []
        return
    (whole,) = found
    assert (whole.counted.total, str(whole.seen)) == (0, "0.0000")
    assert whole.missing == sum(tokens.total for tokens in served(folder).values())
