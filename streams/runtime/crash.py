"""Fail fast: a worker that cannot continue ends at once with code 70, before anything else is written."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from aiokafka.errors import KafkaError

from tallystream.schemas.errors import TallystreamError
from tallystream.streams.local_disk import disk_error

EXIT_CODE = 70
"""EX_SOFTWARE: the state on the topics is correct but this process is not, so a supervisor must restart it."""


def last_words(why: str | BaseException) -> str:
    """Return one line for people; an unexpected exception is followed by its traceback."""
    if isinstance(why, str):
        return f"FATAL {why}\n"
    if isinstance(why, KafkaError):
        return f"FATAL Kafka: {why!r}\n"
    why = disk_error(why) or why
    if isinstance(why, TallystreamError):
        return f"FATAL {why.message}" + (f" ({why.hint})\n" if why.hint else "\n")
    return f"FATAL {why!r}\n" + "".join(traceback.format_exception(why))


class FailFast:
    """Ends the process: `exit` is os._exit, so that handlers, flushes and retries cannot write another row.

    Tests pass another function, which must not return.
    """

    def __init__(self, exit: Callable[[int], NoReturn] = os._exit) -> None:  # noqa: A002 - the documented name
        self._exit = exit

    def __call__(self, why: str | BaseException) -> NoReturn:
        """Write the reason to the real stderr and end the process."""
        stream = sys.__stderr__
        if stream is not None:
            stream.write(last_words(why))
            stream.flush()
        self._exit(EXIT_CODE)
