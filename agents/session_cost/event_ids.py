"""The event ids that a session-hour remembers, each with what was counted under it: blocks, immutable once sealed.

What a group writes grows with what changed: the open entries, or one block of them when they are many (`seal`). A
block is a row of its own, named by the hash of what is in it, and knows the one before it, so the chain of a state is
read from its last block backwards, and a replaced worker's late blocks can neither replace nor be mistaken for
another's.

The last 4,608 ids are remembered. What is forgotten leaves the newest event time in it as the floor: an event that is
not remembered and not newer than that may have been counted. A chain that ends early forgets more, and doubles nothing.
Which entries a block has depends on the groups. What is forgotten, and when, depends on the entries alone, so that a
group that is folded again forgets the same: a block ends at every 512 entries, and so many are forgotten together.
What counts under an id may be replaced (`add`): the id is then in the chain twice, and the later entry is right.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import repeat
from typing import NamedTuple

from tallystream.agents.session_cost import counted
from tallystream.agents.session_cost.counted import UNKNOWN

SEAL_BYTES = 80
"""Bytes of the open entries from which on a group makes a block of them: fewer make more rows, more are written more
often."""
UNIT = 512
"""Ids that are forgotten together; a block has so many at most."""
MAX_IDS = 4608
"""Ids that are remembered at least."""
NONE = bytes(8)
"""Takes the place of a block's name where no block exists."""
FORMAT_IDS, FORMAT = 16, 18
"""First byte of a block's row: ids alone, as older versions wrote them, or with what was counted."""
_ROW = struct.Struct("<Bq8sqq")
"""Format, version (0: what a block holds never changes), the block before, `before`, `newest`; the entries follow."""
_CONTENTS = 9
"""Where what is hashed begins in a row."""
_ID = 8
_PLAIN = _ID + len(UNKNOWN)

Entry = tuple[int, bytes]
"""An id, and what was counted under it (`counted`)."""


class Block(NamedTuple):
    """Packed entries, so many. `before` is the newest event time of all earlier ones, `newest` that of these and those.

    They stay packed, because as objects they would take several times the memory, and few are ever looked at again.
    """

    name: bytes
    previous: bytes
    before: int
    newest: int
    size: int
    entries: bytes


class EventIds:
    """The event ids that a state remembers. `seen` are all of them, `floor` is -1 until something is forgotten."""

    __slots__ = ("blocks", "floor", "forgotten", "fresh", "full", "newest", "open", "opened", "room", "seen")

    def __init__(self) -> None:
        self.seen: dict[int, bytes] = {}
        self.open = bytearray()
        """Packed entries that are not in a block yet, in order of arrival."""
        self.opened = 0
        """How many they are."""
        self.blocks: list[Block] = []
        self.full = 0
        """Entries in blocks."""
        self.room = UNIT
        """Entries until a block has to end."""
        self.newest = -1
        """Newest event time of all ids ever added."""
        self.floor = -1
        self.fresh: dict[bytes, bytes] = {}
        """Rows, by name, of the blocks that have not been written by a group yet."""
        self.forgotten: list[bytes] = []
        """Names of the blocks whose rows are to be removed."""

    def add(self, ident: int, at: int, what: bytes = UNKNOWN) -> None:
        """Remember an id that is not in `seen`, or what counts in the place of what did; `at` is the event's time."""
        self.seen[ident] = what
        self.open += ident.to_bytes(_ID, "little") + what
        self.opened += 1
        self.room -= 1
        if at > self.newest:
            self.newest = at
        if not self.room:
            self._end_unit()

    def extend(self, idents: Sequence[int], times: Sequence[int], newest: int) -> None:
        """Do the same as `add` for ids that are different and not in `seen`, and of which nothing more is known.

        `newest` is the newest of `times`.
        """
        self.seen.update(dict.fromkeys(idents, UNKNOWN))
        size = len(idents)
        while size >= self.room:
            room = self.room
            self._open(idents[:room], max(times[:room]))
            self._end_unit()
            idents, times, size = idents[room:], times[room:], size - room
            newest = max(times, default=-1)
        if size:
            self._open(idents, newest)

    def _open(self, idents: Sequence[int], newest: int) -> None:
        size = len(idents)
        self.open += _plain(size).pack(*idents)
        self.opened += size
        self.room -= size
        if newest > self.newest:
            self.newest = newest

    def _end_unit(self) -> None:
        """End the block, and forget the oldest ones when there are enough."""
        if self.open:
            self._make_block()
        self.room = UNIT
        while self.full > MAX_IDS:
            oldest = self.blocks.pop(0)
            self.full -= oldest.size
            for ident, what in unpack(oldest.entries):
                if self.seen.get(ident) == what:  # else a later entry has taken its place
                    del self.seen[ident]
            self.floor = oldest.newest
            if self.fresh.pop(oldest.name, None) is None:  # else it has never been written
                self.forgotten.append(oldest.name)

    def seal(self) -> None:
        """Make a block of the open entries if they are many; before a group writes the state."""
        if len(self.open) >= SEAL_BYTES:
            self._make_block()

    def _make_block(self) -> None:
        last = self.blocks[-1] if self.blocks else None
        before = self.floor if last is None else last.newest
        previous, newest = NONE if last is None else last.name, self.newest
        row = _row(previous, before, newest, self.open)
        name = _name(row)
        self.blocks.append(Block(name, previous, before, newest, self.opened, row[_ROW.size :]))
        self.fresh[name] = row
        self.full += self.opened
        self.open, self.opened = bytearray(), 0

    def recount(self, counted: Mapping[int, bytes]) -> None:
        """Put something else in the place of what was counted under remembered ids.

        Blocks with such ids, and those after them, get new contents and so new names. Their times stay, and nothing is
        forgotten.
        """

        def changed(entries: bytes) -> bytes:
            # An earlier entry of an id that is in the chain twice is not the valid one.
            return pack(
                (ident, counted[ident] if ident in counted and self.seen[ident] == what else what)
                for ident, what in unpack(entries)
            )

        blocks: list[Block] = []
        now: dict[bytes, bytes] = {}
        for block in self.blocks:
            entries = changed(block.entries)
            previous = blocks[-1].name if blocks else block.previous
            row = _row(previous, block.before, block.newest, entries)
            name = _name(row)
            now[name] = row
            blocks.append(Block(name, previous, block.before, block.newest, block.size, entries))
        before = [block.name for block in self.blocks]
        written = {*before} - self.fresh.keys()
        self.fresh = {name: row for name, row in now.items() if name not in written}
        gone = [*self.forgotten, *(name for name in before if name in written)]
        self.forgotten = [name for name in gone if name not in now]
        self.blocks = blocks
        self.reopen(changed(bytes(self.open)))
        self.seen.update(counted)

    @property
    def last(self) -> bytes:
        """Return the name of the last full block, NONE without one."""
        return self.blocks[-1].name if self.blocks else NONE

    def reopen(self, entries: bytes) -> None:
        """Take the open entries of a state that was put away."""
        self.open = bytearray(entries)
        self.opened = self._remember(entries)
        self.room = UNIT - (self.full + self.opened) % UNIT

    def _remember(self, entries: bytes) -> int:
        """Note packed entries as seen; return how many they are."""
        found = [*unpack(entries)]
        self.seen.update(found)
        return len(found)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the ids in order of arrival."""
        for entries in (*(block.entries for block in self.blocks), bytes(self.open)):
            yield from (ident for ident, _ in unpack(entries))

    def __len__(self) -> int:
        return len(self.seen)


def from_chain(last: bytes, newest: int, still_open: bytes, read: Callable[[bytes], bytes | None]) -> EventIds:
    """Read the chain of blocks that ends with `last`; `read` returns a block's row by its name."""
    ids = EventIds()
    ids.newest = newest
    name = last
    blocks: list[tuple[Block, list[Entry]]] = []
    while name != NONE and ids.full < MAX_IDS + UNIT and (raw := read(name)) is not None:
        block, entries = _load(name, raw)
        blocks.append((block, entries))
        ids.full += block.size
        name = block.previous
    if blocks:
        ids.floor = blocks[-1][0].before
    elif last != NONE:
        ids.floor = newest
    for block, entries in reversed(blocks):
        ids.blocks.append(block)
        ids.seen.update(entries)
    ids.reopen(still_open)
    return ids


def from_format_1(idents: array[int], newest: list[int], floor: int) -> EventIds:
    """Return what a state of format 1 remembers: ids in order, the newest event time of each 512, and the floor."""
    ids = EventIds()
    ids.floor, highest = floor, floor
    for number, ident in enumerate(idents):
        highest = max(highest, newest[number // 512])
        ids.add(ident, highest)
    ids.newest = max(highest, *newest)
    return ids


def _row(previous: bytes, before: int, newest: int, entries: bytes | bytearray) -> bytes:
    """Return the row of a block with these contents."""
    return _ROW.pack(FORMAT, 0, previous, before, newest) + entries


def _name(row: bytes) -> bytes:
    """Return the name of a block: the hash of its contents, which are all of its row but format and version."""
    return blake2b(row[_CONTENTS:], digest_size=8).digest()


def _load(name: bytes, raw: bytes) -> tuple[Block, list[Entry]]:
    form, _, previous, before, newest = _ROW.unpack_from(raw)
    packed = packed_ids(raw[_ROW.size :]) if form == FORMAT_IDS else raw[_ROW.size :]
    entries = [*unpack(packed)]
    return Block(name, previous, before, newest, len(entries), packed), entries


@lru_cache(64)
def _plain(count: int) -> struct.Struct:
    """Return the layout of entries of which nothing more is known: a padding byte is UNKNOWN."""
    return struct.Struct("<" + "Qx" * count)


def pack(entries: Iterable[Entry]) -> bytes:
    """Return the entries one after the other: 8 bytes of the id, little-endian, and what was counted."""
    return b"".join([ident.to_bytes(_ID, "little") + what for ident, what in entries])


def unpack(raw: bytes) -> Iterable[Entry]:
    """Return the entries of `pack`."""
    count = len(raw) // _PLAIN
    if len(raw) == count * _PLAIN and not any(raw[_ID::_PLAIN]):
        return zip(_plain(count).unpack(raw), repeat(UNKNOWN))
    return _unpack(raw)


def _unpack(raw: bytes) -> Iterator[Entry]:
    at, end = 0, len(raw)
    while at < end:
        ident = int.from_bytes(raw[at : at + _ID], "little")
        at += _ID
        what = raw[at : counted.end_of(raw, at)]
        at += len(what)
        yield ident, what


def packed_ids(raw: bytes) -> bytes:
    """Return the ids of a row of an older version, of which nothing more is known, as entries."""
    idents = numbers(raw)
    return _plain(len(idents)).pack(*idents)


def numbers(raw: bytes) -> array[int]:
    """Return 64-bit numbers, little-endian."""
    ids = array("Q")
    ids.frombytes(raw)
    if sys.byteorder != "little":
        ids.byteswap()
    return ids
