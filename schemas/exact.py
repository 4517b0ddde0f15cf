"""JSON with exact numbers: numbers are never parsed as floats.

`loads` gives int for whole numbers (`6`, `6.0` and `6e0` are one number) and Decimal for the others. For places that
allow only JSON's own types, `pack` writes each Decimal as a string and returns where: as a path such as
`[].line_items[].cost` or, if that path also holds strings of digits, as exact positions: `[3].line_items[0].cost`.
`unpack` reverses it, so `unpack(*pack(value)) == value`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from decimal import Decimal, InvalidOperation
from typing import Any

from tallystream.schemas.errors import InvalidBodyError

MAX_DIGITS = 60
"""Maximum digits before the point, and maximum significant digits; money and counts need a third of it."""
MIN_EXPONENT = -6176
"""Smallest exponent of a number's last digit: that of a 128-bit decimal, which billing systems write."""
MAX_TEXT = 6300
"""Maximum characters of a number, which such a decimal needs without an exponent."""

_PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def loads(text: str | bytes) -> Any:
    """Parse JSON exactly.

    Raises:
        InvalidBodyError: not JSON, not UTF-8, `NaN` or `Infinity`, or a number beyond `MAX_DIGITS` or `MIN_EXPONENT`.

    """
    try:
        return json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_constant)
    except (ValueError, RecursionError) as exc:
        raise InvalidBodyError(f"not JSON: {exc}"[:200]) from exc


def dumps(value: object) -> str:
    """Write JSON with each Decimal as a number literal; keys keep their order, no spaces.

    Raises:
        TypeError: a float, or anything else that JSON has no exact form for.

    """
    match value:
        case Decimal():
            return plain(value)
        case dict():
            return "{" + ",".join(f"{_string(key)}:{dumps(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(dumps, value)) + "]"
        case None | bool() | int():
            return json.dumps(value)
        case _:
            return _string(value)


def plain(number: Decimal) -> str:
    """Return the shortest decimal text without an exponent: Decimal("1.50E-3") -> "0.0015"."""
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def canonical(value: object) -> str:
    """Return the same text for every spelling of a value: object keys sorted, everything else as in `dumps`."""
    return dumps(_sorted(value))


def pack(value: object) -> tuple[Any, list[str]]:
    """Return the value with each Decimal as a string, and the sorted paths of those strings.

    A path that holds both Decimals and strings of digits is listed position by position, to distinguish them.
    """
    places: dict[str, list[str]] = {}
    texts: set[str] = set()
    packed = _pack(value, "", "", places, texts)
    return packed, sorted(one for path, found in places.items() for one in (found if path in texts else [path]))


def unpack(value: object, paths: Collection[str]) -> Any:
    """Return the value with the strings at `paths` as Decimals again."""
    return _unpack(value, "", "", frozenset(paths)) if paths else value


def _number(text: str) -> int | Decimal:
    # Cut off before any arithmetic: `1e999999999` is eleven characters of JSON and a gigabyte of digits.
    try:
        number = Decimal(text) if len(text) <= MAX_TEXT else Decimal("NaN")
    except InvalidOperation:  # an exponent beyond those that a Decimal may have
        number = Decimal("NaN")
    if number == 0:
        return 0  # `0E-6176` is how a decimal of 128 bits writes it
    digits = number.as_tuple()
    exponent = digits.exponent
    if (
        not isinstance(exponent, int)
        or exponent < MIN_EXPONENT
        or number.adjusted() > MAX_DIGITS
        or len(digits.digits) > 2 * MAX_DIGITS
    ):
        raise ValueError(f"the number {text[:20]}... has too many digits")
    whole = number.to_integral_value()
    return int(whole) if whole == number else number


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} has no exact JSON form")
    return json.dumps(value, ensure_ascii=False)


def _sorted(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _pack(value: object, path: str, place: str, places: dict[str, list[str]], texts: set[str]) -> Any:
    match value:
        case Decimal():
            places.setdefault(path, []).append(place)
            return plain(value)
        case str() if _PLAIN.fullmatch(value):
            texts.add(path)
        case dict():
            return {
                key: _pack(item, _member(path, key), _member(place, key), places, texts) for key, item in value.items()
            }
        case list():
            return [_pack(item, f"{path}[]", f"{place}[{at}]", places, texts) for at, item in enumerate(value)]
    return value


def _unpack(value: object, path: str, place: str, paths: frozenset[str]) -> Any:
    if isinstance(value, str) and (path in paths or place in paths) and _PLAIN.fullmatch(value):
        return Decimal(value)
    if isinstance(value, dict):
        return {key: _unpack(item, _member(path, key), _member(place, key), paths) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, f"{path}[]", f"{place}[{at}]", paths) for at, item in enumerate(value)]
    return value


def _member(path: str, key: str) -> str:
    """Extend a path by an object's key; a key that could be mistaken for path syntax is quoted as in JSON."""
    name = key if key.isidentifier() else json.dumps(key)
    return f"{path}.{name}" if path else name
