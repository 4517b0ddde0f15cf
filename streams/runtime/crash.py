"""How a worker ends when it cannot go on: at once, with code 70, before anything else is written."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from aiokafka.errors import KafkaError

from tallystream.schemas.errors import TallystreamError

EXIT_CODE = 70
"""EX_SOFTWARE: the state on the topics is right, this process is not. A supervisor starts a new one."""


def last_words(why: str | BaseException) -> str:
    """Return one line for people; an exception nobody foresaw is followed by its traceback."""
    if isinstance(why, str):
        return f"FATAL {why}\n"
    if isinstance(why, KafkaError):
        return f"FATAL Kafka: {why!r}\n"
    if isinstance(why, TallystreamError):
        return f"FATAL {why.message}" + (f" ({why.hint})\n" if why.hint else "\n")
    return f"FATAL {why!r}\n" + "".join(traceback.format_exception(why))


class FailFast:
    """Ends the process: `exit` is os._exit, so that no handler, no flush and no retry can write one more row.

    Tests pass a function of their own; it must not return.
    """

    def __init__(self, exit: Callable[[int], NoReturn] = os._exit) -> None:  # noqa: A002 - the documented name
        self._exit = exit

    def __call__(self, why: str | BaseException) -> NoReturn:
        """Say why on the real stderr and end the process."""
        stream = sys.__stderr__
        if stream is not None:
            stream.write(last_words(why))
            stream.flush()
        self._exit(EXIT_CODE)
