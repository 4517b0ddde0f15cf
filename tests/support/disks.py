"""Disks of their own for a directory: small ones, which can be filled, and read-only ones. They need root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[None]:
    """Put the directory, which is created, on a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def make_read_only(directory: Path) -> None:
    """Mount the disk of `small_disk` anew, so that nothing can be written to it."""
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
