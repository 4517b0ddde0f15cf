"""Reads JSON by protobuf's JSON mapping and accepts every spelling that it allows.

Names of fields are lowerCamelCase or as in the .proto files, unknown ones are ignored, null is absent, numbers come as
numbers or strings, ids as hex (OTLP) or base64 (protobuf). A lone surrogate, which JSON can express but which cannot be
encoded as UTF-8, becomes U+FFFD.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import lru_cache
from typing import Any, Final

import orjson

from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.json_scan import ByteRange, Scanner
from tallystream.schemas.otlp.records import Broken

_HEX: Final = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_UPPER: Final = re.compile(r"(?<=[a-z])([A-Z])")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_BOM: Final = b"\xef\xbb\xbf"
_UTF32: Final = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_UNMARKED: Final = (("utf-32-le", b"{\0\0\0"), ("utf-32-be", b"\0\0\0{"), ("utf-16-le", b"{\0"), ("utf-16-be", b"\0{"))
"""How an object begins in the encodings that JSON once allowed (RFC 4627, section 3)."""
_LONGEST_INTEGER: Final = 40
"""Maximum digits of an integer that is parsed; longer ones do not fit into any field and are slow to parse."""
_DEEPEST: Final = 24
"""Maximum depth to which a broken value is searched for valid parts."""
NOT_JSON: Final = Broken("it is not JSON")

_ID_BYTES: Final = frozenset({8, 16})


def invalid(what: str, hint: str = "see the OTLP/JSON examples of opentelemetry-proto") -> InvalidBodyError:
    """Return the error for JSON that is not OTLP."""
    return InvalidBodyError(f"the body is not valid OTLP/JSON: {what}", hint)


def utf8(body: bytes) -> bytes:
    """Return a body without byte order marks, and UTF-16 or UTF-32, which some runtimes call JSON, as UTF-8."""
    if body.startswith(b"{") and body[1:2] != b"\0":
        return body
    while body.startswith(_BOM):
        body = body[len(_BOM) :]
    if body.startswith(_UTF32):
        return body.decode("utf-32", "replace").encode()
    if body.startswith(_UTF16):
        return body.decode("utf-16", "replace").encode()
    coding = next((coding for coding, begin in _UNMARKED if body.startswith(begin)), "")
    return body.decode(coding, "replace").encode() if coding else body


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


def kind_of(found: object) -> str:
    """Return a JSON value's type for a message."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return "not JSON" if isinstance(found, Broken) else names.get(type(found), "a number")
