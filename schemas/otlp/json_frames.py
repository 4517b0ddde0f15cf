"""The frame of an OTLP/JSON request: its resources, their scopes, and the records in them.

A valid body of moderate size is parsed whole by orjson. Any other body is first split (`json_scan`), and its parts are
parsed one by one on demand. So one broken part does not affect the others, and a large body never exists as Python
objects all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from tallystream.schemas.connections import Signal
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.json_memory import is_surely_allowed, weighs_too_much
from tallystream.schemas.otlp.json_scan import ByteRange, Scanner
from tallystream.schemas.otlp.json_values import entries, get, invalid, kind_of, name_of, parse_parts, snake
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget
from tallystream.schemas.otlp.records import BrokenRecord

KEYS: Final[dict[Signal, tuple[str, str, str]]] = {
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "traces": ("resourceSpans", "scopeSpans", "spans"),
}
PARSED_WHOLE: Final = 4 << 20
"""Largest body that is parsed whole, in bytes: it takes 20 ms, during which no other task runs."""
_FORMER: Final = {
    "scopeLogs": "instrumentationLibraryLogs",
    "scopeMetrics": "instrumentationLibraryMetrics",
    "scopeSpans": "instrumentationLibrarySpans",
    "logRecords": "logs",
}
_FORMER_SCOPE: Final = "instrumentationLibrary"
"""Names of OTLP before 1.0, which old exporters still send."""
_BESIDE: Final = frozenset({"resource", "scope", _FORMER_SCOPE})
_BETWEEN: Final = b"\0\x1e"
"""What may be between two requests, besides white space: padding, and the separator of RFC 7464."""
_BETWEEN_ELEMENTS: Final = _BETWEEN + b"[,]"
_KINDS: Final = {b"{": "an object", b"[": "an array", b'"': "a string", b"n": "null", b"t": "a boolean"} | {
    bytes([first]): "a boolean" if first == 0x66 else "a number" for first in b"f-0123456789"
}


class Part:
    """A value in a body that was not parsed whole."""

    __slots__ = ("_body", "_most", "cut", "start", "stop")

    def __init__(self, body: bytes, span: ByteRange, most: int) -> None:
        self._body = body
        self._most = most
        self.cut = span.cut
        self.start = span.start
        self.stop = span.stop

    def parsed(self) -> tuple[Any, bool]:
        """Return the value, with parts that are not JSON marked, and whether its brackets pair; (None, False) when it
        is too large to be parsed.

        Raises:
            TooManyElementsError: it has more parts than any client sends.

        """
        if self.stop - self.start > self._most:
            return None, False
        raw = self._body[self.start : self.stop]
        return (None, False) if weighs_too_much(raw) else parse_parts(raw)


Record = dict[str, Any] | Part | BrokenRecord
PartItem = tuple[dict[str, Any], dict[str, Any], Part | BrokenRecord]
Item = tuple[dict[str, Any], dict[str, Any], Record]
"""Resource (the whole frame's object or, of a body taken apart, `resource` and no more), scope likewise, record."""


def walk(body: bytes, signal: Signal, tally: DecodingBudget) -> Iterator[Item]:
    """Yield each record of a request with its resource and scope; an item that is not a record is yielded as a
    BrokenRecord.

    Raises:
        InvalidBodyError: it is not such a request, or exceeds a limit.

    """
    document = whole(body)
    if document is None:
        yield from walk_parts(body, signal, tally)
        return
    for resource, scope, records in scopes(document, signal, tally):
        if isinstance(records, BrokenRecord):
            yield resource, scope, records
            continue
        for record in records:
            tally.record()
            yield resource, scope, record if type(record) is dict else not_a_record(tally.records - 1, signal, record)


def walk_parts(body: bytes, signal: Signal, tally: DecodingBudget) -> Iterator[PartItem]:
    """Walk a body that is not parsed whole as `walk` does."""
    return _Walk(body, signal, tally).requests()


def scopes(
    document: dict[str, Any], signal: Signal, tally: DecodingBudget
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Any] | BrokenRecord]]:
    """Yield each scope of a body that was parsed whole, with its resource and its records, which are not counted yet;
    in the place of what is not a scope, a broken record, which is.

    Raises:
        InvalidBodyError: it is not such a request, or exceeds a limit.

    """
    refuse_other_signals(document, signal)
    top, middle, bottom = KEYS[signal]
    for resource in entries(document, top):
        tally.frame()
        if type(resource) is not dict:
            yield {}, {}, _not_an_object(tally, top, kind_of(resource))
            continue
        inner = _inner(resource, middle)
        if not inner and (why := _misnamed(resource, middle)):
            yield resource, {}, _broken(tally, why)
        for scope in inner:
            tally.frame()
            if type(scope) is not dict:
                yield resource, {}, _not_an_object(tally, middle, kind_of(scope))
                continue
            records = _inner(scope, bottom)
            if not records and (why := _misnamed(scope, bottom)):
                yield resource, scope, _broken(tally, why)
            if _FORMER_SCOPE in scope:
                scope = {"scope": scope[_FORMER_SCOPE]} | scope
            yield resource, scope, records


def not_a_record(index: int, signal: Signal, value: Any) -> BrokenRecord:
    """Return what stands for a value that is in a list of records and is not an object."""
    return BrokenRecord(index, _holds(KEYS[signal][2], kind_of(value)))


def _inner(parent: dict[str, Any], key: str) -> list[Any]:
    """Return the list under a key or the name that it had before OTLP 1.0."""
    return entries(parent, key) or (entries(parent, _FORMER[key]) if key in _FORMER else [])


def _misnamed(parent: dict[str, Any], key: str) -> str:
    """Return why a resource or scope has nothing under `key`, empty when nothing seems to be lost."""
    if get(parent, key) is not None:
        return ""
    return _instead(key, [name for name, held in parent.items() if held and type(held) in (list, dict)])


def _instead(key: str, names: list[str]) -> str:
    """Return the reason if one of these objects and lists may be what belongs under `key`."""
    # fields that a later version adds are ignored, as long as the known one is there
    others = ", ".join(repr(name[:40]) for name in names[:8] if name not in _BESIDE)
    return f"it has no {key}, but {others}" if others else ""


def signal_of(body: bytes) -> Signal:
    """Return the signal of a request that came without one. An empty one is treated as logs.

    Raises:
        InvalidBodyError: it is not a request.

    """
    document = whole(body)
    if document is None:
        document = dict.fromkeys(_Walk(body, "logs", DecodingBudget(LIMITS)).top(), ())
    found = next((signal for signal, keys in KEYS.items() if get(document, keys[0]) is not None), None)
    refuse_other_signals(document, found or "logs")
    return found or "logs"


def refuse_other_signals(document: dict[str, Any], signal: Signal) -> None:
    """Raise InvalidBodyError when a request is for another signal, or not a request."""
    if get(document, KEYS[signal][0]) is not None:
        return
    for other, keys in KEYS.items():
        if get(document, keys[0]) is not None:
            raise misplaced(other, signal)
    known = {name for keys in KEYS.values() for name in (keys[0], snake(keys[0]))}
    if document and not known & document.keys():
        shown = ", ".join(repr(name[:40]) for name in list(document)[:3])
        raise invalid(f"it has no {KEYS[signal][0]}, but {shown}", "names of fields are lowerCamelCase or snake_case")


def misplaced(found: Signal, wanted: Signal) -> InvalidBodyError:
    """Return the error for a request of another signal."""
    return InvalidBodyError(
        f"the body holds {found}, but was sent to the endpoint for {wanted}",
        f"set the client's endpoint for {found} to the URL that ends in /v1/{found}",
    )


def whole(body: bytes) -> dict[str, Any] | None:
    """Return the parsed body, None when it has to be split.

    Raises:
        InvalidBodyError: it is not an object.

    """
    if len(body) > PARSED_WHOLE or (not is_surely_allowed(len(body)) and weighs_too_much(body)):
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(document) is list and document and type(document[0]) is dict:
        return None
    if type(document) is not dict:
        raise invalid(f"it is {kind_of(document)}, not an object")
    return document


def _broken(tally: DecodingBudget, why: str) -> BrokenRecord:
    tally.record()
    return BrokenRecord(tally.records - 1, why)


def _not_an_object(tally: DecodingBudget, key: str, kind: str) -> BrokenRecord:
    return _broken(tally, _holds(key, kind))


def _holds(key: str, kind: str) -> str:
    return f"{key} holds {kind}, not only objects"


class _Walk:
    """A body that is split: frames first, then record by record."""

    __slots__ = ("_body", "_keys", "_scanner", "_signal", "_tally", "_told")

    def __init__(self, body: bytes, signal: Signal, tally: DecodingBudget) -> None:
        self._body = body
        self._signal: Signal = signal
        self._keys = KEYS[signal]
        self._tally = tally
        self._scanner = Scanner(body)
        self._told = False
        """Whether a record was cut off, which already reports the damage."""

    def top(self) -> dict[str, ByteRange]:
        """Return the members of the first request."""
        return self._top(self._first())

    def requests(self) -> Iterator[PartItem]:
        """Yield all items of all requests: some senders write several, one after the other or in an array.
        Undecodable remains are yielded last, as one broken record.
        """
        outermost = self._first()
        between = _BETWEEN_ELEMENTS if self._scanner.value(between=_BETWEEN).start < outermost.start else _BETWEEN
        parts = self._top(outermost)
        if self._scanner.damaged and not parts:
            raise self._not_json()
        refuse_other_signals(dict.fromkeys(parts, ()), self._signal)
        why = ""
        while True:
            end = self._scanner.end
            for resource in self._list(parts, self._keys[0]):
                self._tally.frame()
                yield from self._resource(resource)
            if end < 0:
                break
            outermost = self._scanner.value(end, between)
            if outermost.start >= outermost.stop:
                break
            if self._kind(outermost) != "an object":
                why = f"after the request there are {outermost.stop - outermost.start} other bytes"
                break
            self._tally.frame()
            parts = self._top(outermost)
            try:
                refuse_other_signals(dict.fromkeys(parts, ()), self._signal)
            except InvalidBodyError as exc:
                yield {}, {}, _broken(self._tally, exc.message)
        if self._scanner.damaged and not self._told:
            why = why or "a part of the body is not JSON: its quotes and brackets do not pair; it may have been cut off"
        if why:
            yield {}, {}, _broken(self._tally, why)

    def _first(self) -> ByteRange:
        outermost = self._scanner.value()
        if self._kind(outermost) == "an array":
            inner = self._scanner.value(outermost.start + 1, _BETWEEN)
            if self._kind(inner) == "an object":
                return inner
        return outermost

    def _top(self, outermost: ByteRange) -> dict[str, ByteRange]:
        kind = self._kind(outermost)
        if kind == "not JSON":
            raise self._not_json()
        if kind != "an object":
            raise invalid(f"it is {kind}, not an object")
        return {name_of(key): span for key, span in self._scanner.members(outermost)}

    @staticmethod
    def _not_json() -> InvalidBodyError:
        return InvalidBodyError(
            "the body is not JSON: it does not begin like an object, or ends within its first name",
            "is it protobuf? then send Content-Type: application/x-protobuf",
        )

    def _resource(self, span: ByteRange) -> Iterator[PartItem]:
        top, middle, bottom = self._keys
        kind = self._kind(span)
        if kind != "an object":
            yield {}, {}, _not_an_object(self._tally, top, kind)
            return
        parts = self._members(span)
        resource = {"resource": self._described(parts.get("resource"))}
        if why := self._misnamed(parts, middle):
            yield resource, {}, _broken(self._tally, why)
        for inner in self._list(parts, middle):
            self._tally.frame()
            kind = self._kind(inner)
            if kind != "an object":
                yield resource, {}, _not_an_object(self._tally, middle, kind)
                continue
            members = self._members(inner)
            scope = {"scope": self._described(members.get("scope") or members.get(_FORMER_SCOPE))}
            if why := self._misnamed(members, bottom):
                yield resource, scope, _broken(self._tally, why)
            for record in self._list(members, bottom):
                kind = self._kind(record)
                if kind != "an object":
                    yield resource, scope, _not_an_object(self._tally, bottom, kind)
                    continue
                self._tally.record()
                self._told |= record.cut
                yield resource, scope, Part(self._body, record, self._tally.limits.record_bytes)

    def _members(self, span: ByteRange) -> dict[str, ByteRange]:
        return {name_of(name): part for name, part in self._scanner.members(span)}

    def _list(self, parts: dict[str, ByteRange], key: str) -> Iterator[ByteRange]:
        found = self._found(parts, key)
        if found is None:
            return
        kind = self._kind(found)
        if kind == "an array":
            yield from self._scanner.elements(found)
        elif kind != "null":
            yield found

    @staticmethod
    def _found(parts: dict[str, ByteRange], key: str) -> ByteRange | None:
        return parts.get(key) or parts.get(snake(key)) or parts.get(_FORMER.get(key, key))

    def _misnamed(self, parts: dict[str, ByteRange], key: str) -> str:
        if self._found(parts, key) is not None:
            return ""
        filled = (name for name, part in parts.items() if self._body[part.start : part.start + 1] in (b"{", b"["))
        return _instead(key, list(filled))

    def _described(self, span: ByteRange | None) -> dict[str, Any]:
        """Return a resource or scope itself, as far as it can be decoded."""
        found = None if span is None else Part(self._body, span, self._tally.limits.record_bytes).parsed()[0]
        return found if type(found) is dict else {}

    def _kind(self, span: ByteRange) -> str:
        return _KINDS.get(self._body[span.start : span.start + 1], "not JSON")
