"""The event ids that a session-hour remembers: blocks of 16, immutable once full, each a row of its own.

A group writes only changes: the ids of the open block, and blocks that have become full. A block is named by the hash
of its content and refers to the previous one, so the chain of a state is read from its last block backwards, and a
replaced worker's late blocks can neither replace nor be mistaken for another's.

The last 4,608 ids are remembered. The newest event time of forgotten ids becomes the floor: an event whose id is not
remembered and that is not newer than the floor may have been counted. If a chain ends early, more is forgotten, but
nothing is counted twice.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

BLOCK = 16
"""Ids in a block."""
MAX_BLOCKS = 288
"""Maximum number of full blocks that are remembered."""
NONE = bytes(8)
"""Stands for the name of a missing block."""
FORMAT = 16
"""First byte of a block's row."""
_ROW = struct.Struct("<Bq8sqq")
"""Format, version (0: what a block holds never changes), the block before, `before`, `newest`; the ids follow it."""


class Block(NamedTuple):
    """`BLOCK` ids. `before` is the newest event time of all earlier ids, `newest` that of these and those."""

    name: bytes
    previous: bytes
    before: int
    newest: int
    ids: tuple[int, ...]


class EventIds:
    """The event ids that a state remembers. `seen` are all of them, `floor` is -1 until something is forgotten."""

    __slots__ = ("blocks", "floor", "forgotten", "fresh", "newest", "open", "seen")

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.open: list[int] = []
        """The ids that are not in a block yet, in order of arrival."""
        self.blocks: list[Block] = []
        self.newest = -1
        """Newest event time of all ids ever added."""
        self.floor = -1
        self.fresh: list[Block] = []
        """Blocks that have not been written by a group yet."""
        self.forgotten: list[bytes] = []
        """Names of the blocks whose rows are to be removed."""

    def add(self, ident: int, at: int) -> None:
        """Remember an id that is not in `seen`; `at` is the event's time."""
        self.seen.add(ident)
        self.open.append(ident)
        if at > self.newest:
            self.newest = at
        if len(self.open) == BLOCK:
            self._seal(self.newest)

    def _seal(self, newest: int) -> None:
        """Make a block of the open ids, and forget the oldest one when there are enough."""
        last = self.blocks[-1] if self.blocks else None
        before = self.floor if last is None else last.newest
        previous, ids = NONE if last is None else last.name, tuple(self.open)
        block = Block(_name(previous, before, newest, ids), previous, before, newest, ids)
        self.open = []
        self.blocks.append(block)
        self.fresh.append(block)
        if len(self.blocks) > MAX_BLOCKS:
            oldest = self.blocks.pop(0)
            self.seen.difference_update(oldest.ids)
            self.floor = oldest.newest
            self.forgotten.append(oldest.name)

    @property
    def last(self) -> bytes:
        """Return the name of the last full block, NONE without one."""
        return self.blocks[-1].name if self.blocks else NONE

    def __iter__(self) -> Iterator[int]:
        """Iterate over the ids in order of arrival."""
        for block in self.blocks:
            yield from block.ids
        yield from self.open

    def __len__(self) -> int:
        return len(self.seen)


def from_chain(last: bytes, newest: int, still_open: Iterable[int], read: Callable[[bytes], bytes | None]) -> EventIds:
    """Read the chain of blocks that ends with `last`; `read` returns a block's row by its name."""
    ids = EventIds()
    ids.newest, ids.open = newest, list(still_open)
    name = last
    blocks: list[Block] = []
    while name != NONE and len(blocks) < MAX_BLOCKS and (raw := read(name)) is not None:
        block = _load(name, raw)
        blocks.append(block)
        name = block.previous
    ids.blocks = blocks[::-1]
    if blocks:
        ids.floor = blocks[-1].before
    elif last != NONE:
        ids.floor = newest
    ids.seen.update(ids.open, *(block.ids for block in blocks))
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
    return _ROW.pack(FORMAT, 0, block.previous, block.before, block.newest) + pack(block.ids)


def _load(name: bytes, raw: bytes) -> Block:
    _, _, previous, before, newest = _ROW.unpack_from(raw)
    return Block(name, previous, before, newest, tuple(unpack(raw[_ROW.size :])))


def _name(previous: bytes, before: int, newest: int, ids: tuple[int, ...]) -> bytes:
    return blake2b(struct.pack("<8sqq", previous, before, newest) + pack(ids), digest_size=8).digest()


def pack(ids: Iterable[int]) -> bytes:
    """Return ids as 8 bytes each, little-endian."""
    return _little(array("Q", ids)).tobytes()


def unpack(raw: bytes) -> array[int]:
    """Return the ids of `pack`."""
    ids = array("Q")
    ids.frombytes(raw)
    return _little(ids)


def _little(ids: array[int]) -> array[int]:
    if sys.byteorder == "little":
        return ids
    swapped = array("Q", ids)
    swapped.byteswap()
    return swapped
