"""Finds held sightings that may be of the same call although no id says so: the same process, tokens and time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tallystream.schemas.clients.genai.join import TOLERANCE_NS, Likeness, likenesses, sought
from tallystream.schemas.clients.genai.sighting import Sighting
from tallystream.schemas.clients.genai.tree import Key


class AlikeIndex:
    """Sightings of calls with usage, by what they may have in common with others."""

    def __init__(self) -> None:
        self._alike: dict[Likeness, dict[Key, Sighting]] = defaultdict(dict)

    def add(self, seen: Sighting) -> None:
        """Take a sighting; one that is not of a call or without usage is ignored."""
        if seen.kind == "call" and seen.has_usage:
            for likeness in likenesses(seen):
                self._alike[likeness][seen.key] = seen

    def remove(self, seen: Sighting) -> None:
        """Remove a sighting as it was added, if it was."""
        for likeness in likenesses(seen):
            if likeness in self._alike:
                self._alike[likeness].pop(seen.key, None)
                if not self._alike[likeness]:
                    del self._alike[likeness]

    def of(self, seen: Sighting) -> Iterator[Key]:
        """Yield the keys of sightings like this one at the same time, itself perhaps among them."""
        for likeness in sought(seen):
            for key, other in self._alike.get(likeness, {}).items():
                if _overlap(other, seen):
                    yield key


def _overlap(one: Sighting, other: Sighting) -> bool:
    return one.start_ns - TOLERANCE_NS <= other.end_ns and other.start_ns - TOLERANCE_NS <= one.end_ns
