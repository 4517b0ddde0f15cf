"""Query parameters as JQ expressions, compiled once and evaluated at each poll.

An expression does not have an input and can use these names:

    now        seconds since the epoch at the poll (instead of JQ's own `now`); for a resource that is polled once per
               bucket, a moment inside that bucket
    $from      seconds since the epoch: start of the requested window
    $to        its end, exclusive

`'((now | floor) - (86400 * 30)) | strftime("%Y-%m-%d")'` gives "2026-10-22" on 2026-11-21. Values other than texts are
sent as they are; a literal text is JQ too: `'"1d"'`. The environment cannot be read from an expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tallystream.schemas.errors import UsageError
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.process.jq_programs import Jq

PRELUDE = (
    ". as {now: $now, from: $from, to: $to} | {} as $ENV"
    ' | def now: $now; def env: {}; def input: error("input is not available"); def inputs: empty; null | '
)
Value = str | int | float | bool
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Moment:
    """The times for which parameters are evaluated, in seconds since the epoch."""

    now: float
    start: int
    end: int


_PROBES = (Moment(0.5, 0, 86_400), Moment(1_000_000_123.5, 1_000_000_000, 1_000_086_400))
"""Two moments that differ in second, minute, hour, day, month and year."""


class Params:
    """The parameters of one resource.

    Raises:
        UsageError: an expression does not compile.

    """

    def __init__(self, params: Mapping[str, object]) -> None:
        self._programs: dict[str, Jq] = {}
        self._sources: dict[str, str] = {}
        self._literals: dict[str, Any] = {}
        for name, value in params.items():
            if isinstance(value, str):
                self._programs[name] = compile_jq(f"{PRELUDE}({value})", f"parameter {name}", value)
                self._sources[name] = value
            else:
                self._literals[name] = value
        self._names = list(params)

    def evaluate(self, moment: Moment) -> dict[str, Any]:
        """Return each parameter's value; nulls are left out.

        Raises:
            PollError: an expression fails, returns an object, or does not return exactly one value.

        """
        given = {"now": moment.now, "from": moment.start, "to": moment.end}
        values = {}
        for name in self._names:
            value = self._literals[name] if name in self._literals else self._run(name, given)
            if value is not None:
                values[name] = value
        return values

    def fixed(self) -> dict[str, Any]:
        """Return the parameters that do not depend on time: together with the path, they identify the query.

        Raises:
            PollError: as `evaluate`.

        """
        one, other = map(self.evaluate, _PROBES)
        return {name: value for name, value in one.items() if other.get(name) == value}

    def _run(self, name: str, given: dict[str, Any]) -> Any:
        source = self._sources[name]
        try:
            results = self._programs[name].all_of(given)
        except ValueError as exc:
            raise PollError(
                FailureReason.EXPRESSION,
                f"parameter {name} = {source!r} failed: {first_line(exc)}",
                "correct the expression",
            ) from exc
        items = results[0] if len(results) == 1 else None
        if len(results) != 1 or any(isinstance(item, dict | list) for item in _list(items)):
            raise PollError(
                FailureReason.EXPRESSION,
                f"parameter {name} = {source!r} must give one text, number, true, false, null or list of these",
                "correct the expression",
            )
        return items


def pairs(values: Mapping[str, object]) -> Pairs:
    """Return the parameters as they are written in a URL; a list repeats its name (`group_by=model&group_by=batch`)."""
    return [(name, _text(item)) for name, value in values.items() for item in _list(value)]


def compile_jq(program: str, what: str, source: str) -> Jq:
    """Compile a JQ program.

    Raises:
        UsageError: it does not compile; `what` and `source` say which it is.

    """
    try:
        return Jq(program)
    except ValueError as exc:
        raise UsageError(
            f"{what}: {source!r} is not a JQ expression: {first_line(exc)}",
            "a literal text is written in quotes inside the quotes: '\"1d\"'",
        ) from None


def first_line(exc: BaseException) -> str:
    """Return the message of a JQ error without the program that it repeats."""
    return str(exc).partition("\n")[0].partition(" at <top-level>")[0][:200]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
