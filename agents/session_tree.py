"""The tree of sessions: which session started which, out of the links of `session.links`. Pure.

Links are what clients told, so they may form a circle or name sessions that no row is of: neither stops a reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from tallystream.schemas.links import SessionLink

SessionKey = tuple[str, str]
"""connection_id, session_id."""
MAX_DEPTH = 64
"""Ancestors that are told at most."""


class SessionTree:
    """Answers who started a session, from the parent of each.

    In a circle, the session with the least id counts as the one that nothing started.
    """

    def __init__(self, parents: Mapping[SessionKey, str]) -> None:
        self._parents = {key: parent for key, parent in parents.items() if key[1] != parent}
        self._roots: dict[SessionKey, SessionKey] = {}
        for key in sorted(self._parents):
            line: dict[SessionKey, int] = {}
            at = key
            while at not in self._roots and at not in line and at in self._parents:
                line[at] = len(line)
                at = (at[0], self._parents[at])
            if at in line:
                at = min(list(line)[line[at] :])
                del self._parents[at]
            root = self._roots.get(at, at)
            self._roots |= dict.fromkeys(line, root)

    @classmethod
    def of_messages(cls, values: Iterable[bytes | None]) -> SessionTree:
        """Return the tree that the topic's newest values tell; what is not a SessionLink is left out."""
        parents: dict[SessionKey, str] = {}
        for value in values:
            try:
                link = SessionLink.model_validate(orjson.loads(value or b"null"))
            except ValueError:
                continue
            parents[link.connection_id, link.session_id] = link.parent_session_id
        return cls(parents)

    def linked(self) -> set[SessionKey]:
        """Return all sessions that started another one, or were started."""
        return {one for key, parent in self._parents.items() for one in (key, (key[0], parent))}

    def ancestors(self, connection_id: str, session_id: str) -> list[str]:
        """Return the sessions above a session, the nearest first."""
        found: list[str] = []
        at = session_id
        while (up := self._parents.get((connection_id, at))) is not None and len(found) < MAX_DEPTH:
            found.append(up)
            at = up
        return found

    def root(self, connection_id: str, session_id: str) -> str:
        """Return the session at the top, which is the session itself when nothing started it."""
        return self._roots.get((connection_id, session_id), (connection_id, session_id))[1]
