"""The event ids that a session-hour remembers, each with what was counted under it: blocks, immutable once full.

What a group writes grows with what changed: the entries of the open block, and the blocks that have become full. A
block is a row of its own, named by the hash of what is in it, and knows the one before it, so the chain of a state is
read from its last block backwards, and a replaced worker's late blocks can neither replace nor be mistaken for
another's.

The last 4,608 ids are remembered. What is forgotten leaves the newest event time in it as the floor: an event that is
not remembered and not newer than that may have been counted. A chain that ends early forgets more, and doubles nothing.
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
"""Bytes of the open entries from which on they become a block: fewer make more rows, more are written more often."""
MAX_IDS = 4608
"""Ids in full blocks that are remembered."""
NONE = bytes(8)
"""Takes the place of a block's name where no block exists."""
FORMAT_IDS, FORMAT = 16, 18
"""First byte of a block's row: ids alone, as older versions wrote them, or with what was counted."""
_ROW = struct.Struct("<Bq8sqq")
"""Format, version (0: what a block holds never changes), the block before, `before`, `newest`; the entries follow."""
_ID = 8
_PLAIN = _ID + len(UNKNOWN)

Entry = tuple[int, bytes]
"""An id, and what was counted under it (`counted`)."""


class Block(NamedTuple):
    """Entries. `before` is the newest event time of all earlier ones, `newest` that of these and those."""

    name: bytes
    previous: bytes
    before: int
    newest: int
    entries: tuple[Entry, ...]


class EventIds:
    """The event ids that a state remembers. `seen` are all of them, `floor` is -1 until something is forgotten."""

    __slots__ = ("_open_bytes", "blocks", "floor", "forgotten", "fresh", "full", "newest", "open", "seen")

    def __init__(self) -> None:
        self.seen: dict[int, bytes] = {}
        self.open: list[Entry] = []
        """The ids that are not in a block yet, in order of arrival."""
        self._open_bytes = 0
        self.blocks: list[Block] = []
        self.full = 0
        """Entries in blocks."""
        self.newest = -1
        """Newest event time of all ids ever added."""
        self.floor = -1
        self.fresh: list[Block] = []
        """Blocks that have not been written by a group yet."""
        self.forgotten: list[bytes] = []
        """Names of the blocks whose rows are to be removed."""

    def add(self, ident: int, at: int, what: bytes = UNKNOWN) -> None:
        """Remember an id that is not in `seen`, or what counts in the place of what did; `at` is the event's time."""
        self.seen[ident] = what
        self.open.append((ident, what))
        self._open_bytes += _ID + len(what)
        if at > self.newest:
            self.newest = at
        if self._open_bytes >= SEAL_BYTES:
            self._seal(self.newest)

    def extend(self, idents: Sequence[int], times: Sequence[int]) -> None:
        """Do the same as `add` for ids that are different and not in `seen`, and of which nothing more is known."""
        self.seen.update(dict.fromkeys(idents, UNKNOWN))
        at = 0
        while at < len(idents):
            end = at + -((self._open_bytes - SEAL_BYTES) // _PLAIN)
            some = idents[at:end]
            self.open.extend(zip(some, repeat(UNKNOWN)))
            self._open_bytes += _PLAIN * len(some)
            self.newest = max(self.newest, *times[at:end])
            if self._open_bytes >= SEAL_BYTES:
                self._seal(self.newest)
            at = end

    def _seal(self, newest: int) -> None:
        """Make a block of the open entries, and forget the oldest ones when there are enough."""
        last = self.blocks[-1] if self.blocks else None
        before = self.floor if last is None else last.newest
        previous, entries = NONE if last is None else last.name, tuple(self.open)
        block = Block(_name(previous, before, newest, entries), previous, before, newest, entries)
        self.open, self._open_bytes = [], 0
        self.blocks.append(block)
        self.fresh.append(block)
        self.full += len(entries)
        while self.full > MAX_IDS:
            oldest = self.blocks.pop(0)
            self.full -= len(oldest.entries)
            for ident, what in oldest.entries:
                if self.seen.get(ident) == what:  # else a later entry has taken its place
                    del self.seen[ident]
            self.floor = oldest.newest
            self.forgotten.append(oldest.name)

    def recount(self, counted: Mapping[int, bytes]) -> None:
        """Put something else in the place of what was counted under remembered ids.

        Blocks with such ids, and those after them, get new contents and so new names. Their times stay, and nothing is
        forgotten.
        """

        def changed(entry: Entry) -> Entry:
            ident, what = entry
            # An earlier entry of an id that is in the chain twice is not the valid one.
            return (ident, counted[ident]) if ident in counted and self.seen[ident] == what else entry

        blocks: list[Block] = []
        for block in self.blocks:
            entries = tuple(map(changed, block.entries))
            previous = blocks[-1].name if blocks else block.previous
            name = _name(previous, block.before, block.newest, entries)
            blocks.append(Block(name, previous, block.before, block.newest, entries))
        before, now = ({block.name: block for block in some} for some in (self.blocks, blocks))
        written = before.keys() - {block.name for block in self.fresh}
        self.fresh = [block for name, block in now.items() if name not in written]
        gone = [*self.forgotten, *(name for name in before if name in written)]
        self.forgotten = [name for name in gone if name not in now]
        self.blocks = blocks
        self.reopen([changed(entry) for entry in self.open])
        self.seen.update(counted)

    @property
    def last(self) -> bytes:
        """Return the name of the last full block, NONE without one."""
        return self.blocks[-1].name if self.blocks else NONE

    def reopen(self, entries: Iterable[Entry]) -> None:
        """Take the open entries of a state that was put away."""
        self.open = list(entries)
        self._open_bytes = sum(_ID + len(what) for _, what in self.open)
        self.seen.update(self.open)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the ids in order of arrival."""
        for block in self.blocks:
            yield from (ident for ident, _ in block.entries)
        yield from (ident for ident, _ in self.open)

    def __len__(self) -> int:
        return len(self.seen)


def from_chain(
    last: bytes, newest: int, still_open: Iterable[Entry], read: Callable[[bytes], bytes | None]
) -> EventIds:
    """Read the chain of blocks that ends with `last`; `read` returns a block's row by its name."""
    ids = EventIds()
    ids.newest = newest
    name = last
    blocks: list[Block] = []
    while name != NONE and ids.full < MAX_IDS and (raw := read(name)) is not None:
        block = _load(name, raw)
        blocks.append(block)
        ids.full += len(block.entries)
        name = block.previous
    ids.blocks = blocks[::-1]
    if blocks:
        ids.floor = blocks[-1].before
    elif last != NONE:
        ids.floor = newest
    for block in ids.blocks:
        ids.seen.update(block.entries)
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


def dump(block: Block) -> bytes:
    """Return a block's row."""
    return _ROW.pack(FORMAT, 0, block.previous, block.before, block.newest) + pack(block.entries)


def _load(name: bytes, raw: bytes) -> Block:
    form, _, previous, before, newest = _ROW.unpack_from(raw)
    read = unpack_ids if form == FORMAT_IDS else unpack
    return Block(name, previous, before, newest, tuple(read(raw[_ROW.size :])))


def _name(previous: bytes, before: int, newest: int, entries: tuple[Entry, ...]) -> bytes:
    return blake2b(struct.pack("<8sqq", previous, before, newest) + pack(entries), digest_size=8).digest()


def pack(entries: Sequence[Entry]) -> bytes:
    """Return the entries one after the other: 8 bytes of the id, little-endian, and what was counted."""
    if not entries:
        return b""
    idents, whats = zip(*entries, strict=True)
    if whats.count(UNKNOWN) == len(whats):
        return _plain(len(idents)).pack(*idents)
    return b"".join([ident.to_bytes(_ID, "little") + what for ident, what in entries])


@lru_cache(64)
def _plain(count: int) -> struct.Struct:
    """Return the layout of ids of which nothing more is known: a padding byte is UNKNOWN."""
    return struct.Struct("<" + "Qx" * count)


def unpack(raw: bytes) -> Iterator[Entry]:
    """Yield the entries of `pack`."""
    at, end = 0, len(raw)
    while at < end:
        ident = int.from_bytes(raw[at : at + _ID], "little")
        at += _ID
        what = raw[at : counted.end_of(raw, at)]
        at += len(what)
        yield ident, what


def unpack_ids(raw: bytes) -> Iterator[Entry]:
    """Yield the ids of a row of an older version, of which nothing more is known."""
    return ((ident, UNKNOWN) for ident in numbers(raw))


def numbers(raw: bytes) -> array[int]:
    """Return 64-bit numbers, little-endian."""
    ids = array("Q")
    ids.frombytes(raw)
    if sys.byteorder != "little":
        ids.byteswap()
    return ids
