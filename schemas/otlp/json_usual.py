"""Finds the records of a logs request in JSON that may hold what a hint marks, in the compiled form.

Parsing a body makes Python objects of all its records, of which few are read. Compiled, a walk over the bytes finds
these few for less, and only they are parsed. The walk accepts what is surely valid and is spelled as exporters spell
it; whatever is unusual (an unknown member of a resource, an attribute without a key, a number with an exponent) is left
to `json_frames`, whose results are the same for everything that is accepted here. Interpreted, it is much slower than
parsing, so it is used only where it is compiled.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from tallystream.schemas.otlp.json_scan import ByteRange
from tallystream.schemas.otlp.limits import DecodingBudget
from tallystream.schemas.otlp.records import RecordHint

NOWHERE: Final = ByteRange(0, 0)
_DEEPEST: Final = 24
_MOST_DIGITS: Final = 18
_QUOTE: Final = 0x22
_COMMA: Final = 0x2C
_MINUS: Final = 0x2D
_POINT: Final = 0x2E
_ZERO: Final = 0x30
_NINE: Final = 0x39
_COLON: Final = 0x3A
_OPEN_LIST: Final = 0x5B
_BACKSLASH: Final = 0x5C
_CLOSE_LIST: Final = 0x5D
_OPEN: Final = 0x7B
_CLOSE: Final = 0x7D
_RESOURCE: Final = 0
_SCOPE: Final = 1
_RECORD: Final = 2
_PAIR: Final = 3
_ANY: Final = 4
"""What the elements of a list are."""
_BLANKS: Final = bytes(byte in b" \t\r\n" for byte in range(256))
_BY_FREQUENCY: Final = b"zqjxkvbpgwyfmuc_hldrnisoate"
"""Letters in names and texts, the rarest first."""


class Found(NamedTuple):
    """A record that may hold what the hint marks: its number among all records of the body from 0, and its bytes.

    `resource` and `scope` are the bytes of the objects that describe them, empty when there is none.
    """

    number: int
    start: int
    stop: int
    resource: ByteRange
    scope: ByteRange


class UsualLogs:
    """One body; call `find` once.

    The methods read what begins at a position, and return the position of what follows, after white space: -1 when it
    is not in the usual form, or when they are given -1.
    """

    __slots__ = (
        "_arrays",
        "_blanks",
        "_body",
        "_commas",
        "_escaped",
        "_hint",
        "_mark",
        "_marked",
        "_names_only",
        "_objects",
        "_offset",
        "_plain",
        "_plain_bytes",
        "_records",
        "_resource",
        "_scope",
        "_stop",
        "_tally",
        "_text",
        "_text_bytes",
        "found",
    )

    def __init__(self, body: bytes, hint: RecordHint, tally: DecodingBudget) -> None:
        self._body = body
        self._text_bytes = body + b"\0"
        self._text = self._text_bytes
        """The body and a byte at which every loop ends, so that none has to compare its position with the end."""
        self._stop = len(body)
        self._hint = hint
        self._mark = hint.mark
        self._offset, self._plain_bytes = _search(hint.mark)
        self._plain = self._plain_bytes
        self._blanks = _BLANKS
        self._tally = tally
        self._records = 0
        self._objects = 0
        self._arrays = 0
        self._commas = 0
        self._escaped = False
        """Whether a text has an escape with digits: it may be part of a name, and only parsing tells whether it is
        valid."""
        self._marked = False
        """Whether a text has the mark; a value of an attribute does not count where names must have it, too."""
        self._names_only = hint.names_mark.encode() == hint.mark
        self._resource = NOWHERE
        self._scope = NOWHERE
        self.found: list[Found] = []

    def find(self, most: int) -> bool:
        """Whether the whole body is in the usual form; then `found` has the records.

        `most` bounds the memory in bytes that it would need if it were parsed whole, as `json_frames` estimates it.

        Raises:
            TooManyElementsError: it exceeds a limit.

        """
        at = self._expect(self._blank(0), _OPEN)
        at = self._list(self._name(at, b"resourceLogs"), _RESOURCE, 0)
        at = self._expect(at, _CLOSE)
        self._tally.record(self._records)
        needed = 240 * self._objects + 120 * self._arrays + 60 * self._commas
        return at == self._stop and needed <= most and not self._escaped and _is_utf8(self._body)

    def _list(self, at: int, kind: int, depth: int) -> int:
        """Read a list of elements of one kind."""
        at = self._expect(at, _OPEN_LIST)
        self._arrays += 1
        ended = self._expect(at, _CLOSE_LIST)
        if ended >= 0:
            return ended
        while at >= 0:
            if kind == _PAIR:
                at = self._pair(at)
            elif kind == _RECORD:
                at = self._log_record(at)
            elif kind in (_RESOURCE, _SCOPE):
                at = self._group(at, kind)
            else:
                at = self._value(at, depth)
            after = self._expect(at, _COMMA)
            if after < 0:
                return self._expect(at, _CLOSE_LIST)
            self._commas += 1
            at = after
        return -1

    def _group(self, at: int, kind: int) -> int:
        """Read a ResourceLogs or a ScopeLogs: what describes it, what it holds and its schema, in this order."""
        self._tally.frame()
        at = self._expect(at, _OPEN)
        self._objects += 1
        place = NOWHERE
        begin = self._name(at, b"resource" if kind == _RESOURCE else b"scope")
        if begin >= 0:
            at = self._described(begin)
            place = ByteRange(begin, at)
            at = self._expect(at, _COMMA)
        if kind == _RESOURCE:
            self._resource = place
            at = self._list(self._name(at, b"scopeLogs"), _SCOPE, 0)
        else:
            self._scope = place
            at = self._list(self._name(at, b"logRecords"), _RECORD, 0)
        return self._expect(self._schema(at), _CLOSE)

    def _described(self, at: int) -> int:
        """Read a resource or a scope, which must be an object that is surely valid."""
        if not self._is(at, _OPEN):
            return -1
        at = self._value(at, 0)
        return -1 if self._escaped else at

    def _schema(self, at: int) -> int:
        """Read a schema's URL if there is one."""
        if not self._is(at, _COMMA):
            return at
        at = self._name(self._expect(at, _COMMA), b"schemaUrl")
        return self._string(at) if self._is(at, _QUOTE) else -1

    def _log_record(self, at: int) -> int:
        """Read a log record, and add it to `found` when it may hold what the hint marks."""
        begin, escaped = at, self._escaped
        self._escaped = self._marked = False
        at = self._object(at, _RECORD, 0)
        if at < 0:
            return -1
        if self._escaped or (self._marked and self._hint.raw.search(self._body, begin, at) is not None):
            self.found.append(Found(self._records, begin, at, self._resource, self._scope))
        self._escaped = escaped
        self._records += 1
        return at

    def _pair(self, at: int) -> int:
        """Read an attribute: its key, which must be a text, and any value."""
        at = self._expect(at, _OPEN)
        self._objects += 1
        at = self._name(at, b"key")
        at = self._string(at) if self._is(at, _QUOTE) else -1
        if self._is(at, _COMMA):
            self._commas += 1
            marked = self._marked
            at = self._value(self._name(self._expect(at, _COMMA), b"value"), 0)
            if self._names_only:
                self._marked = marked
        return self._expect(at, _CLOSE)

    def _object(self, at: int, kind: int, depth: int) -> int:
        """Read any object; of a record the attributes must be a list of pairs."""
        at = self._expect(at, _OPEN)
        self._objects += 1
        ended = self._expect(at, _CLOSE)
        if ended >= 0:
            return ended
        while at >= 0:
            if not self._is(at, _QUOTE):
                return -1
            begin = at
            at = self._expect(self._string(at), _COLON)
            if kind == _RECORD and self._body.startswith(b'"attributes"', begin):
                at = self._list(at, _PAIR, 0)
            else:
                at = self._value(at, depth)
            after = self._expect(at, _COMMA)
            if after < 0:
                return self._expect(at, _CLOSE)
            self._commas += 1
            at = after
        return -1

    def _value(self, at: int, depth: int) -> int:
        """Read any value."""
        if at < 0 or depth > _DEEPEST:
            return -1
        first = self._text[at]
        if first == _QUOTE:
            return self._string(at)
        if first == _OPEN:
            return self._object(at, _ANY, depth + 1)
        if first == _OPEN_LIST:
            return self._list(at, _ANY, depth + 1)
        for word in (b"true", b"false", b"null"):
            if self._body.startswith(word, at):
                return self._blank(at + len(word))
        return self._number(at)

    def _string(self, at: int) -> int:
        """Read the text whose quote is at `at`."""
        text, plain = self._text, self._plain
        at += 1
        while True:
            while plain[text[at]]:
                at += 1
            byte = text[at]
            if byte == _QUOTE:
                return self._blank(at + 1)
            if byte < 0x20:
                return -1
            if byte == _BACKSLASH:
                at += 1
                if text[at] not in b'"\\/bfnrtu':
                    return -1
                self._escaped = self._escaped or text[at] == 0x75
            else:
                self._marked = self._marked or self._body.startswith(self._mark, at - self._offset)
            at += 1

    def _number(self, at: int) -> int:
        """Read a number without an exponent and of few digits, which certainly fits into a double."""
        if self._is(at, _MINUS):
            at += 1
        begin = at
        at = self._digits(at)
        if at == begin or (at - begin > 1 and self._body[begin] == _ZERO):
            return -1
        if self._is(at, _POINT):
            fraction = at + 1
            at = self._digits(fraction)
            if at == fraction:
                return -1
        return self._blank(at) if at - begin <= _MOST_DIGITS else -1

    def _digits(self, at: int) -> int:
        text = self._text
        while _ZERO <= text[at] <= _NINE:
            at += 1
        return at

    def _name(self, at: int, name: bytes) -> int:
        """Read the name of a member and the colon after it."""
        if not self._is(at, _QUOTE) or not self._body.startswith(name, at + 1):
            return -1
        at += len(name) + 1
        return self._expect(self._blank(at + 1), _COLON) if self._is(at, _QUOTE) else -1

    def _expect(self, at: int, byte: int) -> int:
        return self._blank(at + 1) if self._is(at, byte) else -1

    def _is(self, at: int, byte: int) -> bool:
        return at >= 0 and self._text[at] == byte

    def _blank(self, at: int) -> int:
        """Return the position after white space."""
        text, blank = self._text, self._blanks
        while blank[text[at]]:
            at += 1
        return at


@lru_cache(maxsize=16)
def _search(mark: bytes) -> tuple[int, bytes]:
    """Return which byte of a mark is its rarest, and for each byte whether a text may go on without a closer look."""
    rarest = min(range(len(mark)), key=lambda place: _BY_FREQUENCY.find(mark[place]))
    watched = (*range(0x20), _QUOTE, _BACKSLASH, mark[rarest])
    return rarest, bytes(byte not in watched for byte in range(256))


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
