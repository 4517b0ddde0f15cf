"""The spool file keeps its messages in order until Kafka has acknowledged them, or reports that it cannot."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.examples import examples

from tallystream.streams.gateway.errors import SpoolFullError, SpoolWriteError
from tallystream.streams.gateway.message import Message, Place
from tallystream.streams.gateway.spool.file import ActivityRow, Held, Level, SpoolFile

MESSAGES = st.builds(
    Message,
    topic=st.sampled_from(["t.usage", "t.deadletters"]),
    key=st.binary(max_size=40),
    value=st.binary(max_size=300),
    schema=st.just("usage-batch/1"),
)
HELD = Held(0, 7, "ab" * 32, "codex", None, b'{"digest":"x"}')


def message(number: int, size: int = 10) -> Message:
    return Message("t.usage", b"key-%d" % number, b"v" * size, "usage-batch/1")


def opened(path: Path, max_bytes: int = 1 << 20, quarantine: int = 1 << 20) -> SpoolFile:
    return SpoolFile(path, max_bytes=max_bytes, quarantine_max_bytes=quarantine)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolFile]:
    file = opened(tmp_path / "spool.db")
    yield file
    file.close()


class SpoolModel(RuleBasedStateMachine):
    """Compared with a dict: put, delete, read in pieces and reopen in any order."""

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.spool = opened(self.directory / "spool.db")
        self.model: dict[int, Message] = {}
        self.ever: set[int] = set()

    @rule(messages=st.lists(MESSAGES, max_size=5), at=st.integers(1, 10**18))
    def put(self, messages: list[Message], at: int) -> None:
        ids = self.spool.put(messages, at)
        assert not self.ever & set(ids), "an id was used twice: a late deletion would hit another message"
        self.ever |= set(ids)
        self.model |= zip(ids, messages, strict=True)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.ever)), max_size=5))
        self.spool.delete(ids)
        for one in ids:
            self.model.pop(one, None)

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = opened(self.directory / "spool.db")

    @rule(step=st.integers(1, 2000))
    def read_in_pieces(self, step: int) -> None:
        found: dict[int, Message] = {}
        after = 0
        while rows := self.spool.read(max_bytes=step, after=after):
            found |= {row.id: row.message for row in rows}
            after = rows[-1].id
        assert list(found.items()) == sorted(self.model.items())

    @invariant()
    def level(self) -> None:
        if hasattr(self, "spool"):
            assert self.spool.level.rows == len(self.model)
            assert self.spool.level.bytes == sum(one.size for one in self.model.values())
            assert bool(self.spool.level.oldest_ns) == bool(self.model)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            shutil.rmtree(self.directory)


TestSpoolModel = SpoolModel.TestCase
TestSpoolModel.settings = examples(30, stateful_step_count=20)


def test_spool_commits_are_fsynced(spool: SpoolFile) -> None:
    assert spool._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_full_spool_stores_no_part_of_a_request(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db", max_bytes=1000)
    spool.put([message(1, 500)], 1)
    with pytest.raises(SpoolFullError):
        spool.put([message(2, 10), message(3, 500)], 2)
    assert [row.message for row in spool.read(max_bytes=10**6)] == [message(1, 500)]
    spool.put([message(4, 100)], 3)
    spool.delete([1])
    spool.put([message(5, 500)], 4)
    assert spool.level.rows == 2
    spool.close()


def test_full_disk_is_an_error_and_stores_nothing(spool: SpoolFile) -> None:
    spool.put([message(1)], 1)
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(SpoolWriteError, match="full"):
        spool.put([message(2), message(3, 200_000)], 2)
    with pytest.raises(SpoolWriteError, match="full"):
        spool.hold(HELD._replace(payload=b"x" * 200_000))
    assert [row.message for row in spool.read(max_bytes=10**6)] == [message(1)]
    assert spool.level == Level(1, message(1).size, 1)
    assert spool.quarantine_level == Level()
    spool._db.execute(f"PRAGMA max_page_count = {pages + 400}")
    assert spool.put([message(4, 200_000)], 3)


def test_failing_disk_is_an_error_in_every_call(spool: SpoolFile) -> None:
    spool.put([message(1)], 1)
    spool._db.close()
    for call in (
        lambda: spool.put([message(2)], 2),
        lambda: spool.read(max_bytes=10),
        lambda: spool.delete([1]),
        lambda: spool.hold(HELD),
        lambda: spool.held(1),
        lambda: spool.save_activity([]),
        lambda: spool.load_activity(),
    ):
        with pytest.raises(SpoolWriteError):
            call()
    assert spool.level.rows == 1


def test_spool_files_are_readable_only_by_their_owner(spool: SpoolFile) -> None:
    spool.put([message(1)], 1)
    assert {oct(path.stat().st_mode & 0o777) for path in spool.path.parent.glob("spool.db*")} == {"0o600"}


def test_quarantined_request_becomes_messages_atomically(spool: SpoolFile) -> None:
    spool.hold(HELD)
    (held,) = spool.held(10)
    assert held[1:] == HELD[1:]
    spool.judge(held, [message(1), message(2)], 9)
    assert spool.held(10) == []
    assert [row.message for row in spool.read(max_bytes=10**6)] == [message(1), message(2)]
    assert spool.quarantine_level == Level()


def test_quarantine_has_its_own_limit(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db", quarantine=len(HELD.payload))
    spool.hold(HELD)
    with pytest.raises(SpoolFullError):
        spool.hold(HELD)
    spool.put([message(1)], 1)
    spool.close()


def test_rows_are_found_by_topic_and_partition(tmp_path: Path) -> None:
    spool = SpoolFile(
        tmp_path / "spool.db", max_bytes=1 << 20, quarantine_max_bytes=0, partition_of=lambda one: one.value[0] % 2
    )
    spool.put([Message("t.usage", b"k", bytes([number]), "usage-batch/1") for number in range(6)], 1)
    even = spool.read(Place("t.usage", 0), max_bytes=1 << 20)
    assert [row.message.value[0] for row in even] == [0, 2, 4]
    assert spool.places == {Place("t.usage", 0): 3, Place("t.usage", 1): 3}
    spool.delete([row.id for row in even])
    assert spool.places == {Place("t.usage", 1): 3}
    spool.close()
    again = opened(tmp_path / "spool.db")
    assert again.places == {Place("t.usage", 1): 3}
    again.close()


def test_spool_file_of_version_1_keeps_its_rows(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.executescript(
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
            "INSERT INTO meta VALUES ('format', '1');"
            "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, topic TEXT NOT NULL,"
            " schema TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL);"
            "INSERT INTO messages VALUES (7, 5, 't.usage', 'usage-batch/1', x'6b', x'76');"
        )
    db.close()
    spool = opened(tmp_path / "spool.db")
    assert [(row.id, row.message) for row in spool.read(max_bytes=1)] == [
        (7, Message("t.usage", b"k", b"v", "usage-batch/1"))
    ]
    assert spool.put([message(1)], 9) == [8]
    assert (spool.prefix, spool.cluster_id, spool.level.rows) == ("", "", 2)
    spool.close()


def test_spool_file_names_its_deployment(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db")
    spool.belong("t", "cluster-a")
    spool.close()
    again = opened(tmp_path / "spool.db")
    assert (again.prefix, again.cluster_id) == ("t", "cluster-a")
    again.close()


def test_activity_counts_survive_a_restart(tmp_path: Path) -> None:
    rows = [ActivityRow("codex-1", "logs", 5, 2, 30), ActivityRow("codex-1", "traces", 6, 1, 7)]
    spool = opened(tmp_path / "spool.db")
    spool.save_activity([rows[0]._replace(requests=1), rows[1]])
    spool.save_activity([rows[0]])
    spool.close()
    again = opened(tmp_path / "spool.db")
    assert again.load_activity() == rows
    again.close()


def test_spool_file_of_another_format_is_not_changed(tmp_path: Path) -> None:
    opened(tmp_path / "spool.db").close()
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    db.close()
    with pytest.raises(SpoolWriteError, match="format 99"):
        opened(tmp_path / "spool.db")


def test_empty_spool_releases_disk_space(spool: SpoolFile) -> None:
    spool._max_bytes = 1 << 30
    ids = [one for number in range(30) for one in spool.put([message(number, 1 << 20)], 1)]
    assert spool.path.stat().st_size > 20 << 20
    spool.delete(ids)
    assert spool.path.stat().st_size < 1 << 20
