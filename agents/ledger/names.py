"""The ids of repeated names. A session's hour stores ids, so that a name of any length is stored once."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson

from tallystream.agents.ledger.schema import COLUMN, CREW
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas.usage import ATTRIBUTION_KEYS

_CREW = tuple(ATTRIBUTION_KEYS.index(name) for name in CREW)


def name_key(values: Sequence[object]) -> str:
    """Return what is unique for names: a hash, because they may be longer than a database can index."""
    return sha256(orjson.dumps(tuple(values))).hexdigest()[:40]


class Names:
    """The ids of lines, kinds, crews and attributions. Only the active writer may add ids.

    Known ids are cached; call `forget` when a transaction fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[str, dict[str, int]] = {}
        self._new: dict[str, list[tuple[Any, ...]]] = {}

    def forget(self) -> None:
        """Discard the cache; ids are read again on the next use."""
        self._ids.clear()
        self._new.clear()

    def line(self, connection_id: str, client: str, line: Sequence[str | None]) -> int:
        """Return the id of a line: who used which model, at which tier and price."""
        values = (connection_id, client, *line)
        found = self._find("line", values)
        if found is None:
            _, model, tier, _, _ = line
            found = self._add("line", values, self._id("kind", (client, model, tier)))
        return found

    def attribution(self, values: Sequence[str | None]) -> int:
        """Return the id of an attribution."""
        found = self._find("attribution", values)
        if found is None:
            found = self._add("attribution", values, self._id("crew", tuple(values[place] for place in _CREW)))
        return found

    def store(self) -> None:
        """Write new ids within the transaction that uses them."""
        fields = {
            "kind": ("client", "model", "service_tier"),
            "line": ("connection_id", "client", "provider", "model", "service_tier", "speed", "book", "kind"),
            "crew": CREW,
            "attribution": (*COLUMN.values(), "crew"),
        }
        for table, names in fields.items():
            if rows := self._new.pop(table, None):
                self._database.load(table, ("id", *names, "key"), rows)

    def _id(self, table: str, values: Sequence[object]) -> int:
        found = self._find(table, values)
        return self._add(table, values) if found is None else found

    def _find(self, table: str, values: Sequence[object]) -> int | None:
        ids = self._ids.get(table)
        if ids is None:
            ids = self._ids[table] = {str(k): int(i) for i, k in self._database.rows(f"SELECT id, key FROM {table}")}
        return ids.get(name_key(values))

    def _add(self, table: str, values: Sequence[object], *others: int) -> int:
        key, ids = name_key(values), self._ids[table]
        found = ids[key] = len(ids) + 1
        self._new.setdefault(table, []).append((found, *values, *others, key))
        return found
