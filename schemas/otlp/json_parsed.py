"""The records of a JSON logs request that may matter, found with a JSON parser.

This stays interpreted: compiled code lets no other thread run between the steps of a loop (setup.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tallystream.schemas.otlp.json_attributes import described
from tallystream.schemas.otlp.json_frames import Part, not_a_record, scopes, walk_parts, whole
from tallystream.schemas.otlp.json_records import is_wanted, record_of
from tallystream.schemas.otlp.json_values import member, text
from tallystream.schemas.otlp.limits import DecodingBudget
from tallystream.schemas.otlp.records import BrokenRecord, LogRecord, RecordHint, Value

_ESCAPE: Final = b"\\u"
"""A name may be written with escapes, which are visible only after decoding."""


def candidates(body: bytes, tally: DecodingBudget, hint: RecordHint) -> Iterator[LogRecord | BrokenRecord]:
    """Yield the records that the hint finds, and what is broken.

    Raises:
        InvalidBodyError: the records cannot be separated, or exceed a limit.

    """
    document = whole(body)
    if document is None:
        return _walked(body, tally, hint)
    return _parsed(document, tally, hint, marked=_Marks(body, hint.mark).any)


def _parsed(
    document: dict[str, Any], tally: DecodingBudget, hint: RecordHint, *, marked: bool
) -> Iterator[LogRecord | BrokenRecord]:
    """Walk a parsed request. `marked`: the hint's mark may occur in the body, so its records must be looked at."""
    mark, search = hint.names_mark, hint.names.search
    owner: dict[str, Any] | None = None
    shown: dict[str, Value] = {}
    for resource, scope, records in scopes(document, "logs", tally):
        if isinstance(records, BrokenRecord):
            yield records
            continue
        first = tally.records
        tally.record(len(records))
        for index, record in enumerate(records, first):
            if type(record) is not dict:
                yield not_a_record(index, "logs", record)
                continue
            if not marked:
                continue
            try:
                # as `is_wanted` decides for nearly all records
                names = "\n".join([entry["key"] for entry in record["attributes"]])
                wanted = mark in names and search(names) is not None
            except (TypeError, KeyError):
                wanted = is_wanted(record, hint)
            body = record.get("body")
            if wanted or (type(body) is dict and "stringValue" not in body and is_wanted(record, hint)):
                if owner is not resource:
                    owner = resource
                    shown = described(member(resource, "resource"))
                tally.usage_record()
                yield record_of(record, index, text(member(scope, "scope"), "name"), shown, tally.limits)


def _walked(body: bytes, tally: DecodingBudget, hint: RecordHint) -> Iterator[LogRecord | BrokenRecord]:
    """Walk a body part by part."""
    marks = _Marks(body, hint.mark)
    owner: dict[str, Any] | None = None
    shown: dict[str, Value] = {}
    for resource, scope, part in walk_parts(body, "logs", tally):
        index = tally.records - 1
        if isinstance(part, BrokenRecord):
            yield part
            continue
        if not part.cut and not marks.within(part):
            continue
        record, sound = part.parsed()
        if type(record) is not dict:
            size = part.stop - part.start
            yield BrokenRecord(index, f"it is not JSON, or too large to be a record: {size} bytes")
            continue
        if sound and not is_wanted(record, hint):
            continue
        if owner is not resource:
            owner = resource
            shown = described(member(resource, "resource"))
        tally.usage_record()
        made = record_of(record, index, text(member(scope, "scope"), "name"), shown, tally.limits)
        yield made if sound or isinstance(made, BrokenRecord) else BrokenRecord(index, "its brackets do not pair", made)


class _Marks:
    """Finds where a body may contain what a hint marks. Must be asked in ascending order."""

    __slots__ = ("_body", "_mark", "_next")

    def __init__(self, body: bytes, mark: bytes) -> None:
        self._body = body
        self._mark = mark
        self._next = {mark: 0, _ESCAPE: 0}

    @property
    def any(self) -> bool:
        """Whether there is one anywhere."""
        body = self._body
        return self._mark in body or (b"\\" in body and _ESCAPE in body)

    def within(self, part: Part) -> bool:
        """Whether there is one in the part."""
        for mark, place in self._next.items():
            if 0 <= place <= part.start:
                place = self._next[mark] = self._body.find(mark, part.start)
            if 0 <= place < part.stop:
                return True
        return False
