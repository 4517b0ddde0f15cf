"""Executes another program, which the kernel kills with SIGKILL when its parent process ends.

Run as a script, by its path: `python -I -S exec_bound.py PARENT_PID PROGRAM ARGUMENT...`; `children.py` does so. It is
a separate script, because code between fork and exec (`preexec_fn`) may deadlock in a process with threads. The
parent-death signal survives exec, so it holds for PROGRAM. Linux only; elsewhere PROGRAM is simply started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Request the parent-death signal, check that the parent still runs, and execute the program."""
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.execv(program, sys.argv[2:])  # noqa: S606 - that is its purpose


if __name__ == "__main__":
    main()
