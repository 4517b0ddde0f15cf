"""Attributes, values and times in OTLP/JSON.

Some serialisers do not follow protobuf's JSON mapping. Their spellings are read where they cannot mean anything else:
Go's encoding/json, which writes `{"Value": {"IntValue": 5}}`, protobuf.js, which writes a 64-bit number as its two
halves, plain values, and attributes as an object.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, Final

from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.json_values import clean, get, invalid, kind_of
from tallystream.schemas.otlp.limits import LIMITS
from tallystream.schemas.otlp.numbers import whole_number
from tallystream.schemas.otlp.records import OPAQUE, Broken, Value
from tallystream.schemas.otlp.times import read_time

_NUMBER: Final = re.compile(r"[+-]?(?:NaN|Infinity|[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?)", re.ASCII)
_NANOSECONDS: Final = 19
"""Digits of a time between 2001 and 2286."""
_SHORT: Final = 19
"""A number with fewer digits fits into 64 bits."""
_KINDS: Final = {
    "stringValue": "stringValue", "intValue": "intValue", "boolValue": "boolValue", "doubleValue": "doubleValue",
    "arrayValue": "arrayValue", "kvlistValue": "kvlistValue", "bytesValue": "bytesValue",
    "string_value": "stringValue", "int_value": "intValue", "bool_value": "boolValue", "double_value": "doubleValue",
    "array_value": "arrayValue", "kvlist_value": "kvlistValue", "bytes_value": "bytesValue",
}  # fmt: skip
_FOLDED: Final = {name.lower(): name for name in _KINDS if "_" not in name}
_PAIR: Final = frozenset({"key", "value"})
_HALVES: Final = frozenset({"low", "high", "unsigned"})


def nanoseconds(parent: dict[str, Any], key: str) -> int:
    """Return the time under `key`, in whatever unit a whole number has; 0 when it is absent or not a time."""
    found = get(parent, key)
    if type(found) is str and len(found) == _NANOSECONDS and found.isascii() and found.isdigit():
        return int(found)
    if found is None:
        return 0
    number = _integer(found, key, 0, 2**64)
    # a fraction of seconds, or text
    return number if isinstance(number, int) else read_time(found)


def pairs(parent: dict[str, Any]) -> list[Any]:
    """Return the list under `attributes` without nulls; of an object that has keys as names the same list, up to the
    first attribute that is too much for a record.
    """
    found = parent.get("attributes")
    if type(found) is list:
        return [entry for entry in found if entry is not None]
    if type(found) is dict and not _PAIR.issuperset(found):
        return [{"key": key, "value": value} for key, value in islice(found.items(), LIMITS.attributes + 1)]
    return [] if found is None else [found]


def attributes(parent: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes under `attributes` as key -> undecoded AnyValue; of two with one key the last one.

    Raises:
        InvalidBodyError: they are not keys and values.

    """
    listed = parent.get("attributes")
    if type(listed) is list:
        try:
            found = {entry["key"]: entry["value"] for entry in listed}
            if None not in found.values() and "".join(found).isascii():
                return found
        except (TypeError, KeyError):
            pass
    return {clean(key): value for key, value in map(_pair, pairs(parent))}


def _pair(entry: Any) -> tuple[str, Any]:
    if type(entry) is not dict:
        raise invalid(f"attributes holds {kind_of(entry)}, not only objects")
    key = entry.get("key")
    if type(key) is not str and (key is not None or (entry and _PAIR.isdisjoint(entry))):
        raise invalid(
            "an attribute has no key" if key is None else f"an attribute's key is {kind_of(key)}, not a string"
        )
    value = entry.get("value")
    if value is None and len(entry) > 1:
        # some senders put the value's field beside the key
        value = {name: held for name, held in entry.items() if name not in ("key", "value")} or None
    return key or "", value


def sound_attributes(parent: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of which the key can be read, as `attributes` does."""
    found = {}
    for entry in pairs(parent):
        try:
            key, value = _pair(entry)
        except InvalidBodyError:
            continue
        found[clean(key)] = value
    return found


def body_pairs(record: dict[str, Any]) -> dict[str, Any]:
    """Return a body that is a key-value list as key -> undecoded AnyValue, empty for other bodies.

    Some pipelines move a record's attributes into its body, or into `attributes` in it.
    """
    body = get(record, "body")
    found = _listed(body)
    inner = _listed(found.get("attributes"))
    return found | inner if inner else found


def _listed(value: Any) -> dict[str, Any]:
    held = get(value, "kvlistValue") if type(value) is dict else None
    return sound_attributes({"attributes": get(held, "values")}) if type(held) is dict else {}


def described(parent: dict[str, Any]) -> dict[str, Value]:
    """Return the attributes of a resource or scope as far as they can be decoded."""
    return {key: any_value(value) for key, value in sound_attributes(parent).items()}


def attribute_names(parent: dict[str, Any]) -> str:
    """Return the keys of the attributes, one per line. This must be fast, because nothing else is read of most records.

    Raises:
        InvalidBodyError: they are not a list of keys and values.

    """
    found = parent.get("attributes")
    if type(found) is list:
        try:
            return "\n".join([entry["key"] for entry in found])
        except (TypeError, KeyError):
            pass
    # of an object too large for a record all names count
    return "\n".join(found if type(found) is dict and not _PAIR.issuperset(found) else attributes(parent))


def any_value(value: object) -> Value:
    """Return the content of an AnyValue, `Broken` when it is not valid."""
    if value is None:
        return None
    if type(value) is not dict:
        return _plain(value)
    text = value.get("stringValue")
    if type(text) is str and len(value) == 1:
        return text if text.isascii() else clean(text)
    unknown = False
    for name, held in value.items():
        if held is None:
            continue
        kind = _KINDS.get(name)
        if kind is not None:
            return _of_kind(kind, held)
        unknown = True
    return _misspelt(value) if unknown else None


def _of_kind(kind: str, held: Any) -> Value:
    if kind == "stringValue":
        return clean(held) if type(held) is str else Broken(f"stringValue is {kind_of(held)}")
    if kind == "intValue":
        if type(held) is str and len(held) < _SHORT and held.isascii() and held.isdigit():
            return int(held)
        return _integer(held, kind, -(2**63), 2**63)
    if kind == "boolValue":
        return held if type(held) is bool else Broken(f"boolValue is {kind_of(held)}")
    if kind == "doubleValue":
        return _double(held)
    return OPAQUE


def _misspelt(value: dict[str, Any], *, inside: bool = False) -> Value:
    """Return the content of an AnyValue that is written in another case or within another object.

    What is left is not treated as absent: a count must not be read as 0 because its field has another name.
    """
    for name, held in value.items():
        folded = name.replace("_", "").lower()
        if held is None:
            continue
        if folded in _FOLDED:
            return _of_kind(_FOLDED[folded], held)
        if folded == "value" and type(held) is dict and not inside:
            return _misspelt(held, inside=True)
    return Broken("it has no field of an AnyValue, such as stringValue")


def _plain(value: Any) -> Value:
    """Return a value that is not wrapped in an object."""
    if type(value) is str:
        return clean(value)
    if type(value) is bool or type(value) is float:
        return value
    if type(value) is int:
        return _integer(value, "it", -(2**63), 2**63)
    return Broken(f"it is {kind_of(value)}, not an object such as {{'stringValue': ...}}")


def _integer(found: object, key: str, low: int, high: int) -> int | Broken:
    """Return a 64-bit integer. By protobuf's JSON mapping 100, 1e2, 100.0, "100" and "1e2" are all the same."""
    number: Any = found
    if type(found) is str:
        number = whole_number(found)
    elif type(found) is float:
        number = int(found) if found.is_integer() else None
    elif type(found) is dict:
        number = _of_halves(found, signed=low < 0)
    if type(number) is not int:
        return Broken(f"{key} is not a whole number")
    return number if low <= number < high else Broken(f"{key} does not fit into 64 bits")


def _of_halves(found: dict[str, Any], *, signed: bool) -> int | None:
    """Return the number of which protobuf.js wrote the two halves of 32 bits, which are signed."""
    low, high = found.get("low"), found.get("high")
    if type(low) is not int or type(high) is not int or not _HALVES.issuperset(found):
        return None
    if not (-(2**31) <= low < 2**32 and -(2**31) <= high < 2**32):
        return None
    number = (high & 0xFFFFFFFF) << 32 | (low & 0xFFFFFFFF)
    return number - 2**64 if signed and number >= 2**63 else number


def _double(found: Any) -> float | Broken:
    try:
        if type(found) is int or type(found) is float or (type(found) is str and _NUMBER.fullmatch(found)):
            return float(found)
    except OverflowError:
        return float("inf") if found > 0 else float("-inf")
    return Broken("doubleValue is not a number")
