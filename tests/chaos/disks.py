"""Disks that are small, and disks that are full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


class SmallDisks:
    """Mounts disks of `megabytes`, which needs root; with 0 it mounts none."""

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes
        self._mounted: list[Path] = []

    def mount(self, path: Path) -> None:
        """Mount a disk at `path`."""
        if not self._megabytes:
            return
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "tmpfs", str(path)], check=True)
        self._mounted.append(path)

    def unmount(self) -> None:
        """Unmount all disks, whoever still uses them."""
        for path in self._mounted:
            subprocess.run(["umount", "-l", str(path)], check=False)
        self._mounted.clear()


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fill the file system of `disk` for the duration of the block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while out.write(b"\0" * size):
                    pass
    try:
        yield
    finally:
        filler.unlink()
