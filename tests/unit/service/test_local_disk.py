"""What the local disk refuses is told with its cause and the next step, whoever met it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import rocksdict
from tests.support.disks import make_read_only, small_disk

from tallystream.streams.local_database import LocalDatabase
from tallystream.streams.local_disk import LocalDiskError, disk_error
from tallystream.streams.runtime.crash import last_words
from tallystream.streams.service.locks import ProcessLock

CREDENTIALS = {
    "TALLYSTREAM_USER_KEY": "key",
    "TALLYSTREAM_PORT_CLIENT_ID": "id",
    "TALLYSTREAM_PORT_CLIENT_SECRET": "secret",
}


def database(path: Path) -> LocalDatabase:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    return LocalDatabase(path, lambda: rocksdict.Rdict(str(path), options), pytest.fail)


def test_full_device_is_named_by_python_and_sqlite(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        Path("/dev/full").write_bytes(b"x")
    assert "free space" in getattr(disk_error(caught.value), "hint", "")
    with closing(sqlite3.connect(tmp_path / "small")) as db:
        db.execute("PRAGMA max_page_count=2")
        with pytest.raises(sqlite3.OperationalError) as full:
            db.executescript("CREATE TABLE a(x); CREATE TABLE b(x)")
    assert "free space" in getattr(disk_error(full.value), "hint", "")


def test_other_errors_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "missing").read_text()
    with closing(sqlite3.connect(":memory:")) as db, pytest.raises(sqlite3.OperationalError) as syntax:
        db.execute("SELEKT")
    assert disk_error(missing.value) is disk_error(syntax.value) is disk_error(Exception("IOError")) is None
    assert "Traceback" in last_words(missing.value)


def test_database_that_another_process_has_open_is_not_removed(tmp_path: Path) -> None:
    db = database(tmp_path / "rows")
    db.put(b"kept", b"1")
    program = f"""
import rocksdict
from pathlib import Path
from tallystream.streams.local_database import LocalDatabase
path = Path({str(tmp_path / "rows")!r})
LocalDatabase(path, lambda: rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True)), print)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "LocalDiskError" in done.stderr
    assert "Resource temporarily unavailable" in done.stderr
    assert done.stdout == ""
    assert db.get(b"kept") == b"1"
    db.close()


def test_full_disk_under_a_local_database_is_an_error_with_its_cause_and_loses_nothing(tmp_path: Path) -> None:
    here = tmp_path / "disk"
    with small_disk(here, 8):
        path = here / "rows"
        db = database(path)
        db.put(b"first", b"1")

        def fill() -> None:
            for number in range(100_000):
                db.put(b"%d" % number, os.urandom(1000))

        with pytest.raises(LocalDiskError, match="No space left on device") as caught:
            fill()
        assert caught.value.hint.startswith("free space on that disk")
        assert last_words(caught.value).startswith("FATAL a local database cannot be used: IO error: No space left")
        db.close()
        with pytest.raises(LocalDiskError):
            database(path)
        subprocess.run(["mount", "-o", "remount,size=64m", str(here)], check=True)
        db = database(path)
        assert db.get(b"first") == b"1"
        db.close()


@pytest.mark.parametrize("mishap", ["read-only", "a file"])
def test_component_names_the_disk_that_it_cannot_use(tmp_path: Path, mishap: str) -> None:
    """The gateway, which must answer agents, starts even so."""
    here = tmp_path / "disk"
    with small_disk(here, 1):
        data = here / "data"
        if mishap == "a file":
            data.write_text("not a directory")
        make_read_only(here)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTREAM_")}
        for component in ("worker", "sink", "exporter"):
            done = subprocess.run(
                [sys.executable, "-m", "tallystream", component, "--kafka", "127.0.0.1:1", "--data-dir", str(data)],
                env=kept | CREDENTIALS, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            last = json.loads(done.stderr.splitlines()[-1])
            assert (done.returncode, last["code"]) == (1, "disk"), f"{component}: {done.stderr}"
            assert str(data) in last["error"]
            assert "--data-dir" in last["hint"]
            assert "exception" not in last


def test_directory_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):

        def without_locks(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", without_locks)
        with pytest.raises(OSError, match="lock") as caught:
            ProcessLock(tmp_path / "lock").acquire()
        told = disk_error(caught.value)
        assert told is not None
        assert str(tmp_path / "lock") in told.message
        assert "local disk" in told.hint
