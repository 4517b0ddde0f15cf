"""The tree of the spans of one or more traces, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tallystream.schemas.clients.genai.sighting import Sighting

Key = tuple[str, str]
MAX_DEPTH = 256
"""Maximum number of ancestors that are visited. Real traces are not so deep; a deeper one may contain a cycle."""


class Tree:
    """Sightings arranged by parent."""

    def __init__(self, sightings: Iterable[Sighting]) -> None:
        self.by_key: Mapping[Key, Sighting] = {seen.key: seen for seen in sightings}
        self._below_unseen: dict[Key, Sighting] = {}
        for seen in self.by_key.values():
            above = (seen.trace_id, seen.parent_id)
            if seen.parent_id and above not in self.by_key and seen.session is not None:
                first = self._below_unseen.get(above)
                if first is None or (seen.start_ns, seen.key) < (first.start_ns, first.key):
                    self._below_unseen[above] = seen

    def above(self, seen: Sighting) -> Iterator[Sighting]:
        """Yield the ancestors of a sighting, the nearest first."""
        for _ in range(MAX_DEPTH):
            up = self.by_key.get((seen.trace_id, seen.parent_id)) if seen.parent_id else None
            if up is None:
                return
            yield up
            seen = up

    def is_rooted(self, seen: Sighting) -> bool:
        """Tell whether all ancestors of a sighting are known, up to the root of its trace."""
        line = [seen, *self.above(seen)]
        return not line[-1].parent_id

    def session(self, seen: Sighting) -> str | None:
        """Return the session of the outermost sighting that names one, None when nothing above names any.

        A delegated agent may name a conversation of its own, but the cost belongs to the session that asked for it.
        When no ancestor names a session and the topmost known parent has not arrived (a span is sent only after the
        spans below it), the first session named below that parent is used.
        """
        outermost: Sighting | None = seen if seen.session is not None else None
        last = seen
        for last in self.above(seen):
            if last.session is not None:
                outermost = last
        if outermost is None and last.parent_id:
            outermost = self._below_unseen.get((last.trace_id, last.parent_id))
        return None if outermost is None else outermost.parent_session or outermost.session

    def agent(self, seen: Sighting) -> str | None:
        """Return the name of the nearest agent at or above a sighting."""
        if seen.agent is not None:
            return seen.agent
        return next((up.agent for up in self.above(seen) if up.agent is not None), None)
