"""The lock of a data dir."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from tallystream.schemas.errors import UsageError
from tallystream.streams.embedded import dirlock
from tallystream.streams.embedded.dirlock import DirLock


def test_lock_waits_for_a_child_that_is_being_forked(tmp_path: Path) -> None:
    """Between fork and exec a child holds our file descriptors; a restart at that moment must not be refused."""
    lock = DirLock(tmp_path / ".lock")
    lock.acquire()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock.fd,)) as forked:
        lock.release()
        threading.Timer(0.2, forked.communicate).start()
        lock.acquire()
        assert forked.stdin is not None
        assert forked.stdin.closed
    lock.release()


def test_second_broker_is_refused_with_the_owners_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirlock, "FORK_SECONDS", 0.1)
    lock = DirLock(tmp_path / ".lock")
    lock.acquire()
    with pytest.raises(UsageError, match=f"already runs in .* .process {os.getpid()}"):
        DirLock(tmp_path / ".lock").acquire()
    lock.release()
