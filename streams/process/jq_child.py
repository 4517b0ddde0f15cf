"""Runs JQ programs for another process; a run that takes too much CPU time ends this process with SIGPROF.

CPU time, because a busy machine or a paused process must not make a sound program fail.

Run as a script, by its path. On stdin and stdout: a length (4 bytes, little-endian) and marshal's bytes; a request is
(program, input, whether all results are wanted, seconds of CPU time), an answer (whether it worked, the results or the
complaint).
"""

from __future__ import annotations

import marshal
import resource
import signal
import struct
import sys
from functools import lru_cache
from typing import Any

import jq

LENGTH = struct.Struct("<I")
MEMORY = 1 << 30
"""Bytes of address space: a program that builds more ends this process."""


def main() -> None:
    """Answer requests until stdin ends."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    compiled = lru_cache(maxsize=256)(jq.compile)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    while head := source.read(LENGTH.size):
        request = marshal.loads(source.read(LENGTH.unpack(head)[0]))  # noqa: S302 - our own parent's
        program, text, everything, seconds = request
        answer: tuple[bool, Any]
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            run = compiled(program).input_text(text)
            answer = True, run.all() if everything else next(iter(run), None)
        except ValueError as exc:
            answer = False, str(exc)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        raw = marshal.dumps(answer)
        sink.write(LENGTH.pack(len(raw)) + raw)
        sink.flush()


if __name__ == "__main__":
    main()
