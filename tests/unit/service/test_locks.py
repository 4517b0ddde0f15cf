"""Locks between processes: one holder, whose process id is known; a killed process releases its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tallystream.schemas.errors import UsageError
from tallystream.streams.service.locks import ProcessLock, held, holder

HOLDER = """
import sys
from pathlib import Path
from tallystream.streams.service.locks import ProcessLock
lock = ProcessLock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_with(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def refused(pid: int | None) -> UsageError:
    return UsageError(f"it runs already (process {pid})", "stop it first")


def test_lock_of_another_process_is_refused_with_its_pid(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with another_process_with(path) as other:
        assert holder(path) == other.pid
        with pytest.raises(UsageError, match=f"process {other.pid}"), held(path, refused):
            pass
        # A refused attempt does not affect the holder.
        assert not ProcessLock(path).acquire()
        assert holder(path) == other.pid


def test_killed_process_releases_a_file_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with another_process_with(path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert holder(path) is None
        with held(path, refused):
            assert holder(path) == os.getpid()
    assert holder(path) is None


def test_lock_can_be_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with another_process_with(path) as other:
        assert not ProcessLock(path).acquire(wait=0.1)
        assert other.stdin is not None
        other.stdin.close()
        lock = ProcessLock(path)
        assert lock.acquire(wait=-1)
        lock.release()


def test_locks_within_a_process_exclude_each_other(tmp_path: Path) -> None:
    first, second = ProcessLock(tmp_path / "lock"), ProcessLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
    second.release()


def test_removed_lock_file_does_not_protect(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = ProcessLock(path)
    assert first.acquire()
    path.unlink()
    second = ProcessLock(path)
    assert second.acquire()
    assert holder(path) == os.getpid()
    first.release()
    assert not ProcessLock(path).acquire()
    second.release()


@pytest.mark.parametrize("content", ["", "not a number", "\xff\xfe", "²"])
def test_lock_file_without_a_pid_has_no_known_holder(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    lock = ProcessLock(path)
    assert lock.acquire()
    path.write_bytes(content.encode("latin-1"))
    assert holder(path) is None
    lock.release()


def test_unused_lock_has_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path / "none" / "lock") is None
    with held(tmp_path / "made" / "lock", refused):
        assert holder(tmp_path / "made" / "lock") == os.getpid()
