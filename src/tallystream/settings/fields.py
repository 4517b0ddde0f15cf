"""Types of settings that people write in more than one form: durations and sizes."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from tallystream.settings import forms


def _duration(given: Any, read: ValidatorFunctionWrapHandler) -> timedelta:
    """Read the forms of people, seconds, and what pydantic reads besides, such as `0:15:00`."""
    if isinstance(given, str):
        found = forms.duration(given)
        given = int(given) if found is None and given.strip().isdecimal() else given if found is None else found
    seconds: timedelta = _or_named(given, read, forms.DURATIONS)
    return seconds


def _byte_size(given: Any, read: ValidatorFunctionWrapHandler) -> int:
    """Read sizes with units."""
    found = forms.byte_size(given) if isinstance(given, str) else None
    size: int = _or_named(given if found is None else found, read, forms.SIZES)
    return size


def _or_named(given: Any, read: ValidatorFunctionWrapHandler, named: str) -> Any:
    """Return what `read` returns.

    Raises:
        ValueError: it cannot be read. The message names the forms, and not where a parser stopped.

    """
    try:
        return read(given)
    except ValidationError as exc:
        if exc.errors()[0]["type"].startswith(("greater_than", "less_than")):
            raise
        raise ValueError(named) from None


Duration = Annotated[timedelta, WrapValidator(_duration)]
ByteSize = Annotated[int, WrapValidator(_byte_size)]
