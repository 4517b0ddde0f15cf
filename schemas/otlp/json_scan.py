"""Finds the parts of a JSON text without parsing it: where a value ends, and what an object or array contains.

Works on bytes: in UTF-8 no byte of a longer character looks like a quote or a bracket. Skipped parts are neither kept
nor trusted: each needed part is parsed separately, and a broken part affects only itself, as long as its quotes and
brackets pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tallystream.schemas.errors import TooManyElementsError

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT: Final = rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+'


def _nested(depth: int) -> bytes:
    """Return the pattern of what may be between two brackets, with up to `depth` levels of nested brackets."""
    pattern = _FLAT
    for _ in range(depth):
        pattern = rb'[^"{}\[\]]*+(?:(?:' + _STRING + rb"|[{\[]" + pattern + rb'[}\]])[^"{}\[\]]*+)*+'
    return pattern


_SHALLOW: Final = re.compile(rb"[{\[]" + _nested(6) + rb"[}\]]", re.DOTALL)
"""Matches an object or array as deep as a log record with plain attributes in one step."""
_TOKEN: Final = re.compile(rb'["{}\[\]]')
_STRING_BODY: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^\s,\]}:]++")
_BLANK: Final = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*+")
_WINDOW: Final = 256 << 10
"""Bytes that are searched in one step: longer values are skipped in several steps, between which other tasks may
run."""
_SMALL_WINDOW: Final = 32 << 10
_MOST_STEPS: Final = 2_000_000
"""Maximum number of values and brackets that are visited one by one: one second of work."""
_DEEPEST: Final = 1_000


class _UnpairedError(Exception):
    """The text ends within a value."""


class ByteRange(NamedTuple):
    """A value's bytes: `start` to `stop`."""

    start: int
    stop: int
    cut: bool = False
    """Whether the value is cut off: then `stop` is the end of the enclosing value."""


class Scanner:
    """One JSON text. If a part does not end, the rest of the text is treated as that part.

    Every method raises TooManyElementsError when the text has more parts than any client sends.
    """

    __slots__ = ("_steps", "damaged", "end", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.damaged = False
        """Whether the text ended within a value."""
        self.end = -1
        """Where the object ended whose members were found last, -1 when it did not end."""
        self._steps = 0

    def value(self, position: int = 0, between: bytes = b"") -> ByteRange:
        """Return the value after `position`, which is assumed to reach to the end of the text, without the bytes of
        `between` before it.
        """
        position = self._blank(position)
        while between and self.text[position : position + 1] and self.text[position] in between:
            self._step()
            position = self._blank(position + 1)
        return ByteRange(position, len(self.text))

    def _span(self, position: int, end: int) -> ByteRange:
        """Return the value that begins at `position`."""
        try:
            return ByteRange(position, self._skip(position, end))
        except _UnpairedError:
            self.damaged = True
            return ByteRange(position, end, cut=True)

    def _skip(self, position: int, end: int) -> int:
        if position >= end:
            raise _UnpairedError
        text = self.text
        first = text[position]
        if first == 0x22:
            return self._skip_string(position, end)
        if first in b"{[":
            found = _SHALLOW.match(text, position, min(end, position + _WINDOW))
            return found.end() if found is not None else self._skip_deep(position, end)
        after = self._past(_SCALAR, position, end)
        if after == position:
            raise _UnpairedError
        return after

    def elements(self, array: ByteRange) -> Iterator[ByteRange]:
        """Yield the elements of an array."""
        text, position = self.text, array.start + 1
        while (position := self._blank(position)) < array.stop:
            byte = text[position]
            if byte == 0x5D:
                return
            if byte in b",:}":
                position += 1
                continue
            self._step()
            element = self._span(position, array.stop)
            yield element
            position = element.stop
        self.damaged = True

    def members(self, obj: ByteRange) -> Iterator[tuple[bytes, ByteRange]]:
        """Yield (key as written, without its quotes; value) of an object."""
        text, position = self.text, obj.start + 1
        self.end = -1
        while (position := self._blank(position)) < obj.stop:
            byte = text[position]
            if byte == 0x7D:
                self.end = position + 1
                return
            if byte == 0x2C:
                position += 1
                continue
            if byte != 0x22:
                break
            self._step()
            name = self._span(position, obj.stop)
            colon = self._blank(name.stop)
            if text[colon : colon + 1] != b":":
                break
            value = self._span(self._blank(colon + 1), obj.stop)
            yield text[position + 1 : name.stop - 1], value
            position = value.stop
        self.damaged = True

    def _blank(self, position: int) -> int:
        """Return the position after white space and byte order marks."""
        return self._past(_BLANK, position, len(self.text))

    def _past(self, pattern: re.Pattern[bytes], position: int, end: int) -> int:
        """Return the position after all that `pattern` matches, in steps of one window."""
        while True:
            window = min(end, position + _WINDOW)
            found = pattern.match(self.text, position, window)
            after = position if found is None else found.end()
            # a byte order mark may be cut by the end of a window
            if after == position or after < window - 2 or window == end:
                return after
            position = after

    def _next_token(self, position: int, end: int) -> int:
        """Return the position of the next quote or bracket, -1 without one."""
        while position < end:
            window = min(end, position + _WINDOW)
            found = _TOKEN.search(self.text, position, window)
            if found is not None:
                return found.start()
            position = window
        return -1

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TooManyElementsError("the body has more values than any client sends")

    def _skip_deep(self, position: int, end: int) -> int:
        text, depth = self.text, 0
        while (found := self._next_token(position, end)) >= 0:
            self._step()
            token = text[found]
            position = found + 1
            if token == 0x22:
                position = self._skip_string(position - 1, end)
            elif token in b"{[":
                inner = _SHALLOW.match(text, position - 1, min(end, position + _SMALL_WINDOW)) if depth else None
                if inner is not None:
                    position = inner.end()
                    continue
                depth += 1
                if depth > _DEEPEST:
                    raise TooManyElementsError(f"the body nests values more than {_DEEPEST} deep")
            else:
                depth -= 1
                if not depth:
                    return position
        raise _UnpairedError

    def _skip_string(self, position: int, end: int) -> int:
        text = self.text
        position += 1
        while position < end:
            window = min(end, position + _WINDOW)
            found = _STRING_BODY.match(text, position, window)
            after = position if found is None else found.end()
            if after < end and text[after] == 0x22:
                return after + 1
            if after == position and window == end:
                break
            # a backslash may be the last byte of a window
            position = after
        raise _UnpairedError
