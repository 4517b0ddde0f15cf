"""A clock for the broker that a test can set: a small library, loaded before libc, shifts the JVM's wall clock.

It needs a C compiler and Linux; without them the kind is left out.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

_FILE = "TEST_CLOCK_FILE"
_SOURCE = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *seconds;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TEST_CLOCK_FILE");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0)
        return;
    void *found = mmap(0, sizeof(long long), PROT_READ, MAP_SHARED, fd, 0);
    seconds = found == MAP_FAILED ? 0 : found;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    int result = syscall(SYS_clock_gettime, id, at);
    if (!result && id == CLOCK_REALTIME && seconds)
        at->tv_sec += *seconds;
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


def available() -> bool:
    """Tell whether a broker's clock can be set here."""
    return sys.platform == "linux" and shutil.which("cc") is not None


class BrokerClock:
    """A shift of the wall clock of processes that are started within `shifting`, which `set` changes at any time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._shift = folder / "shift"
        self._library = folder / "clock.so"
        self.set(timedelta(0))
        source = folder / "clock.c"
        source.write_text(_SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source)], check=True)

    def set(self, ahead: timedelta) -> None:
        """Let the clock be ahead of the machine's, or behind it if negative."""
        with self._shift.open("r+b" if self._shift.exists() else "wb") as out:
            out.write(struct.pack("=q", int(ahead.total_seconds())))

    @contextmanager
    def shifting(self) -> Iterator[None]:
        """Let processes that are started in the block have this clock."""
        changed = {"LD_PRELOAD": str(self._library), _FILE: str(self._shift)}
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
