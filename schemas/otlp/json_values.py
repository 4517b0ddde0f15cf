"""Reading OTLP/JSON: the rules that protobuf's JSON mapping and the OTLP specification give, checked as we go.

Keys are lowerCamelCase, unknown ones are ignored, null is absent, int64 comes as string or number, ids are hex.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.records import OPAQUE, Value

_INTEGER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_NUMBER: Final = re.compile(r"NaN|-?Infinity|-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_SNAKE: Final = re.compile(r"(?<=[a-z])([A-Z])")


def invalid(what: str, hint: str = "see the OTLP/JSON examples of opentelemetry-proto") -> InvalidBodyError:
    """Return the error for JSON that is no OTLP."""
    return InvalidBodyError(f"the body is not valid OTLP/JSON: {what}", hint)


def load(body: bytes) -> dict[str, Any]:
    """Parse the body.

    Raises:
        InvalidBodyError: it is no JSON, or no object.

    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidBodyError(
            f"the body is not JSON: {exc}",
            "is it protobuf? then send Content-Type: application/x-protobuf",
        ) from exc
    if type(document) is not dict:
        raise invalid(f"it is {_kind(document)}, not an object")
    return document


def objects(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects under `key`, empty when it is absent or null.

    Raises:
        InvalidBodyError: it is something else, or the key is there in snake_case, which OTLP/JSON does not allow and
            which would otherwise be an unknown field: silence where there is data.

    """
    found = parent.get(key)
    if found is None:
        snake = _SNAKE.sub(lambda match: f"_{match[1].lower()}", key)
        if snake != key and snake in parent:
            raise invalid(f"it says {snake!r}", f"keys of OTLP/JSON are lowerCamelCase: {key!r}")
        return []
    if type(found) is not list:
        raise invalid(f"{key} is {_kind(found)}, not an array")
    for entry in found:
        if type(entry) is not dict:
            raise invalid(f"{key} holds {_kind(entry)}, not only objects")
    return found


def member(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key`, empty when it is absent or null."""
    found = parent.get(key)
    if found is None:
        return {}
    if type(found) is not dict:
        raise invalid(f"{key} is {_kind(found)}, not an object")
    return found


def text(parent: dict[str, Any], key: str) -> str:
    """Return the string under `key`, empty when it is absent or null."""
    found = parent.get(key)
    if found is None:
        return ""
    if type(found) is not str:
        raise invalid(f"{key} is {_kind(found)}, not a string")
    return found


def nanoseconds(parent: dict[str, Any], key: str) -> int:
    """Return the fixed64 under `key`, 0 when it is absent or null."""
    found = parent.get(key)
    return 0 if found is None else _integer(found, key, 0, 2**64)


def hex_id(parent: dict[str, Any], key: str) -> str:
    """Return the trace or span id under `key` in lowercase, empty when it is absent."""
    found = text(parent, key)
    if not _HEX.fullmatch(found) or len(found) % 2:
        raise invalid(f"{key} is not hex", "ids of OTLP/JSON are hex, not base64")
    return found.lower()


def attributes(parent: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes under `attributes` as key -> undecoded AnyValue; of two with one key the last one."""
    return {text(entry, "key"): entry.get("value") for entry in objects(parent, "attributes")}


def attribute_names(parent: dict[str, Any]) -> str:
    """Return the keys of the attributes, a line each, at the least cost: most records are read no further."""
    entries = parent.get("attributes")
    if type(entries) is list:
        try:
            return "\n".join([entry["key"] for entry in entries])
        except (TypeError, KeyError):
            pass
    return "\n".join(attributes(parent))


def any_value(value: Any) -> Value:
    """Return what an AnyValue holds.

    Raises:
        InvalidBodyError: it is no AnyValue.

    """
    if value is None:
        return None
    if type(value) is not dict:
        raise invalid(f"an attribute's value is {_kind(value)}, not an object such as {{'stringValue': ...}}")
    for kind, held in value.items():
        if held is None:
            continue
        if kind == "stringValue":
            if type(held) is not str:
                raise invalid(f"stringValue is {_kind(held)}")
            return held
        if kind == "intValue":
            return _integer(held, kind, -(2**63), 2**63)
        if kind == "boolValue":
            if type(held) is not bool:
                raise invalid(f"boolValue is {_kind(held)}")
            return held
        if kind == "doubleValue":
            return _double(held)
        if kind in {"arrayValue", "kvlistValue", "bytesValue"}:
            return OPAQUE
    return None


def _integer(found: Any, key: str, low: int, high: int) -> int:
    if type(found) is str and _INTEGER.fullmatch(found):
        found = int(found)
    if type(found) is not int:
        raise invalid(f"{key} is not a whole number")
    if not low <= found < high:
        raise invalid(f"{key} does not fit into 64 bits")
    return found


def _double(found: Any) -> float:
    if type(found) is int or type(found) is float:
        return float(found)
    if type(found) is str and _NUMBER.fullmatch(found):
        return float(found)
    raise invalid("doubleValue is not a number")


def _kind(found: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(found), "a number")
