"""Runs JQ programs for another process, which ends this one when a program takes too long.

Run as a script, by its path. On stdin and stdout: a length (4 bytes, little-endian) and marshal's bytes; a request is
(program, input, whether all results are wanted), an answer (whether it worked, the results or the complaint).
"""

from __future__ import annotations

import marshal
import resource
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
    while head := source.read(LENGTH.size):
        program, text, everything = marshal.loads(source.read(LENGTH.unpack(head)[0]))  # noqa: S302 - our own parent's
        answer: tuple[bool, Any]
        try:
            run = compiled(program).input_text(text)
            answer = True, run.all() if everything else next(iter(run), None)
        except ValueError as exc:
            answer = False, str(exc)
        raw = marshal.dumps(answer)
        sink.write(LENGTH.pack(len(raw)) + raw)
        sink.flush()


if __name__ == "__main__":
    main()
