"""Reads OTLP/JSON by protobuf's JSON mapping and accepts every spelling that it allows.

Names of fields are lowerCamelCase or as in the .proto files, unknown ones are ignored, null is absent, numbers come as
numbers or strings, ids as hex (OTLP) or base64 (protobuf). A lone surrogate, which JSON can express but which cannot be
encoded as UTF-8, becomes U+FFFD.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import orjson

from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.json_scan import ByteRange, Scanner
from tallystream.schemas.otlp.records import OPAQUE, Broken, Value

_NUMBER: Final = re.compile(r"[+-]?(?:NaN|Infinity|[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?)", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_UPPER: Final = re.compile(r"(?<=[a-z])([A-Z])")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_NANOSECONDS: Final = 19
"""Digits of a time between 2001 and 2286."""
_SHORT: Final = 19
"""A number with fewer digits fits into 64 bits."""
_LONGEST_INTEGER: Final = 40
"""Maximum digits of an integer that is parsed; longer ones do not fit into any field and are slow to parse."""
_DEEPEST: Final = 24
"""Maximum depth to which a broken value is searched for valid parts."""
NOT_JSON: Final = Broken("it is not JSON")

_ID_BYTES: Final = frozenset({8, 16})
_KINDS: Final = {
    "stringValue": "stringValue", "intValue": "intValue", "boolValue": "boolValue", "doubleValue": "doubleValue",
    "arrayValue": "arrayValue", "kvlistValue": "kvlistValue", "bytesValue": "bytesValue",
    "string_value": "stringValue", "int_value": "intValue", "bool_value": "boolValue", "double_value": "doubleValue",
    "array_value": "arrayValue", "kvlist_value": "kvlistValue", "bytes_value": "bytesValue",
}  # fmt: skip


def invalid(what: str, hint: str = "see the OTLP/JSON examples of opentelemetry-proto") -> InvalidBodyError:
    """Return the error for JSON that is not OTLP."""
    return InvalidBodyError(f"the body is not valid OTLP/JSON: {what}", hint)


def utf8(body: bytes) -> bytes:
    """Return a body without its byte order mark, and UTF-16, which some runtimes call JSON, as UTF-8."""
    if body.startswith(_BOM):
        return body[len(_BOM) :]
    return body.decode("utf-16", "replace").encode() if body.startswith(_UTF16) else body


def load(body: bytes) -> dict[str, Any]:
    """Parse a body.

    Raises:
        InvalidBodyError: it is not JSON, or not an object.

    """
    body = utf8(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        document = parse(body)
        if isinstance(document, Broken):
            raise InvalidBodyError(
                f"the body is not JSON: {exc}",
                "is it protobuf? then send Content-Type: application/x-protobuf",
            ) from exc
    if type(document) is not dict:
        raise invalid(f"it is {kind_of(document)}, not an object")
    return document


def parse(raw: bytes) -> Any:
    """Return a JSON value, NOT_JSON when it is not valid.

    Input that orjson rejects but the standard library's parser accepts is accepted: bare NaN and Infinity, numbers
    beyond a double, control characters in text, bytes that are not UTF-8.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(raw.decode(errors="replace"), strict=False, parse_int=_parsed_integer)
    except (ValueError, RecursionError):
        return NOT_JSON


def parse_parts(raw: bytes) -> tuple[Any, bool]:
    """Return a JSON value and whether its brackets pair; parts of it that are not JSON are NOT_JSON.

    Raises:
        TooManyElementsError: it has more parts than any client sends.

    """
    value = parse(raw)
    if value is not NOT_JSON:
        return value, True
    scanner = Scanner(raw)
    value = _parts(scanner, scanner.value(), 0)
    return value, not scanner.damaged


def _parts(scanner: Scanner, span: ByteRange, depth: int) -> Any:
    raw = scanner.text[span.start : span.stop]
    if depth and (value := parse(raw)) is not NOT_JSON:
        return value
    if depth < _DEEPEST and raw[:1] == b"{":
        # of a name given twice, the last value counts
        return {name_of(key): _parts(scanner, part, depth + 1) for key, part in scanner.members(span)}
    if depth < _DEEPEST and raw[:1] == b"[":
        return [_parts(scanner, part, depth + 1) for part in scanner.elements(span)]
    return NOT_JSON


def name_of(raw: bytes) -> str:
    """Return a key as text; unchanged when it is not a valid JSON string."""
    found = parse(b'"%b"' % raw) if b"\\" in raw else NOT_JSON
    return found if isinstance(found, str) else raw.decode(errors="replace")


def _parsed_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


@lru_cache(maxsize=256)
def snake(key: str) -> str:
    """Return a field's name as the .proto files have it: `resource_logs` for `resourceLogs`."""
    return _UPPER.sub(lambda match: f"_{match[1].lower()}", key)


def get(parent: dict[str, Any], key: str) -> Any:
    """Return what is under `key` in either spelling, None when it is absent or null."""
    found = parent.get(key)
    return parent.get(snake(key)) if found is None else found


def objects(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects under `key`, empty when it is absent or null.

    Raises:
        InvalidBodyError: it is something else.

    """
    found = get(parent, key)
    if found is None:
        return []
    if type(found) is not list:
        raise invalid(f"{key} is {kind_of(found)}, not an array")
    for entry in found:
        if type(entry) is not dict:
            raise invalid(f"{key} holds {kind_of(entry)}, not only objects")
    return found


def entries(parent: dict[str, Any], key: str) -> list[Any]:
    """Return the list under `key`; a single object becomes a list of one, any other value an empty list."""
    found = get(parent, key)
    if type(found) is list:
        return found
    return [] if found is None else [found]


def member(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key`, empty when it is absent or not an object."""
    found = get(parent, key)
    return found if type(found) is dict else {}


def text(parent: dict[str, Any], key: str) -> str:
    """Return the string under `key`, empty when it is absent or not a string."""
    found = get(parent, key)
    return clean(found) if type(found) is str else ""


def clean(found: str) -> str:
    """Return text with U+FFFD for each lone surrogate."""
    return found if found.isascii() else _SURROGATE.sub("\ufffd", found)


def nanoseconds(parent: dict[str, Any], key: str) -> int:
    """Return the fixed64 under `key`, 0 when it is absent or not such a number."""
    found = get(parent, key)
    if type(found) is str and len(found) == _NANOSECONDS and found.isascii() and found.isdigit():
        return int(found)
    number = 0 if found is None else _integer(found, key, 0, 2**64)
    return number if isinstance(number, int) else 0


def hex_id(parent: dict[str, Any], key: str) -> str:
    """Return the trace or span id under `key` in lowercase hex, empty when it is absent.

    OTLP writes ids in hex, protobuf's JSON mapping in base64. Other values are returned unchanged, because they still
    distinguish records.
    """
    found = text(parent, key)
    if _HEX.fullmatch(found) and len(found) // 2 in _ID_BYTES:
        return found.lower()
    try:
        raw = base64.b64decode(found.replace("-", "+").replace("_", "/") + "=" * (-len(found) % 4), validate=True)
    except (ValueError, binascii.Error):
        return found.lower()
    return raw.hex() if len(raw) in _ID_BYTES else found.lower()


def attributes(parent: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes under `attributes` as key -> undecoded AnyValue; of two with one key the last one.

    Raises:
        InvalidBodyError: they are not a list of keys and values.

    """
    found = {}
    for entry in objects(parent, "attributes"):
        key = entry.get("key")
        if type(key) is not str and key is not None:
            raise invalid(f"an attribute's key is {kind_of(key)}, not a string")
        found[clean(key or "")] = entry.get("value")
    return found


def described(parent: dict[str, Any]) -> dict[str, Value]:
    """Return the attributes of a resource or scope as far as they can be decoded."""
    return {
        clean(key): any_value(entry.get("value"))
        for entry in entries(parent, "attributes")
        if type(entry) is dict and type(key := entry.get("key")) is str
    }


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
    return "\n".join(attributes(parent))


def any_value(value: object) -> Value:
    """Return the content of an AnyValue, `Broken` when it is not valid."""
    if value is None:
        return None
    if type(value) is not dict:
        return Broken(f"it is {kind_of(value)}, not an object such as {{'stringValue': ...}}")
    text = value.get("stringValue")
    if type(text) is str and len(value) == 1:
        return text if text.isascii() else clean(text)
    for name, held in value.items():
        kind = _KINDS.get(name)
        if held is None or kind is None:
            continue
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
    return None


def _integer(found: object, key: str, low: int, high: int) -> int | Broken:
    """Return a 64-bit integer. By protobuf's JSON mapping 100, 1e2, 100.0, "100" and "1e2" are all the same."""
    number: Any = found
    if type(found) is str and _WHOLE.fullmatch(found):
        exact = Decimal(found)
        number = int(exact) if exact == exact.to_integral_value() else None
    elif type(found) is float:
        number = int(found) if found.is_integer() else None
    if type(number) is not int:
        return Broken(f"{key} is not a whole number")
    return number if low <= number < high else Broken(f"{key} does not fit into 64 bits")


def _double(found: Any) -> float | Broken:
    try:
        if type(found) is int or type(found) is float or (type(found) is str and _NUMBER.fullmatch(found)):
            return float(found)
    except OverflowError:
        return float("inf") if found > 0 else float("-inf")
    return Broken("doubleValue is not a number")


def kind_of(found: object) -> str:
    """Return a JSON value's type for a message."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return "not JSON" if isinstance(found, Broken) else names.get(type(found), "a number")
