"""`openai-model`: a model that OpenAI lists or has listed, or that sessions used of OpenAI.

model, listed (null while no list has been polled), unlisted_since (when a list without it was polled first), and what
the list says of it: object, created, owned_by, permission.

An answer without a model is no longer in the topic when a later one has replaced it, so what was sent to Port is what
remembers that a model was listed: its note in `port.sent` keeps the time as the document's `order`. For the retention
rule, a model that is not listed any more is as old as its last use in a session, or as that time if that is later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from tallystream.agents.port_sink.documents.base import Document, DocumentRows
from tallystream.agents.port_sink.mapping.identifiers import decode, encode
from tallystream.schemas import keys
from tallystream.schemas.hours import HOUR_MS, hour_from_iso
from tallystream.schemas.openai import OpenAIRecord

KIND = "openai-model"
LIST = b"R|" + keys.join("/models") + b"|"
USED = b"M|" + keys.join("openai") + b"|"
SENT = b"P|"
_EARLIER = ("/models", "model")
"""Kinds that gave these entities before this one did. Their notes tell a model by the entity's identifier alone."""
_FIELDS = ("object", "created", "owned_by", "permission")


class OpenAIModelDocuments:
    """`blueprints` are those that the mapping makes of this kind; their notes are what was listed before."""

    prefixes: tuple[bytes, ...] = (b"R|", b"M|")

    def __init__(self, blueprints: Iterable[str] = ()) -> None:
        self._sent = [SENT + keys.join("entity", name) + b"|" for name in sorted(blueprints)]
        self._versions: tuple[tuple[int, int], ...] = ()
        self._listed: dict[str, dict[str, Any]] = {}
        self._polled_ms: int | None = None

    def key_for(self, row: bytes) -> bytes | None:
        """Return the model of a row of its use. A list concerns all models: see `affected`."""
        return keys.join(keys.split(row)[2]) if row.startswith(USED) else None

    def affected(self, rows: DocumentRows, row: bytes) -> Iterator[bytes]:
        """Yield the models that a row changes."""
        if row.startswith(LIST):
            yield from self.keys(rows)
        elif (key := self.key_for(row)) is not None:
            yield key

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the models listed, used, and sent."""
        self._read(rows)
        names = set(self._listed)
        names.update(keys.split(row)[2] for row, _ in rows.scan(USED))
        names.update(name for name, _, _ in self._notes(rows))
        yield from (keys.join(name) for name in sorted(names))

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Return one model."""
        (name,) = keys.split(key)
        self._read(rows)
        listed = self._listed.get(name)
        record = {"model": name, "listed": None, "unlisted_since": None, **dict.fromkeys(_FIELDS)}
        if listed is not None:
            return Document([{**record, **{field: listed.get(field) for field in _FIELDS}, "listed": True}])
        used = rows.get(USED + key)
        note = self._note(rows, name)
        if used is None and note is None:
            return None
        if self._polled_ms is None:
            return Document([record])
        last_ms = None if used is None else _end_ms(used.value)
        since_ms = note or self._polled_ms
        if used is not None and last_ms is None:
            at_ms = None
        elif note is None:
            at_ms = last_ms
        else:
            at_ms = max(since_ms, last_ms or 0)
        return Document([{**record, "listed": False, "unlisted_since": _moment(since_ms)}], at_ms, since_ms)

    def _read(self, rows: DocumentRows) -> None:
        """Read the lists, when they have changed: the newest of each query."""
        found = [kept for _, kept in rows.scan(LIST)]
        versions = tuple(kept.version for kept in found)
        if versions == self._versions:
            return
        records = [OpenAIRecord.model_validate_json(kept.value) for kept in found]
        self._listed = {row["id"]: row for one in records for row in one.exact_rows() if isinstance(row.get("id"), str)}
        self._polled_ms = max((int(one.polled_at.timestamp() * 1000) for one in records), default=None)
        self._versions = versions

    def _notes(self, rows: DocumentRows) -> Iterator[tuple[str, str, int]]:
        """Yield model, kind and order of what was sent."""
        for prefix in self._sent:
            for row, kept in rows.scan(prefix):
                note = orjson.loads(kept.value)
                kind = note["source"]["kind"]
                if kind == KIND:
                    yield keys.split(note["source"]["key"].encode())[0], kind, note["order"]
                elif kind in _EARLIER:
                    yield decode(keys.split(row)[3]), kind, 0

    def _note(self, rows: DocumentRows, name: str) -> int | None:
        """Return the order that a model was sent with, 0 when it was listed then; None when it was not sent."""
        usual = [kept for prefix in self._sent if (kept := rows.get(prefix + keys.join(encode(name)))) is not None]
        for kept in usual:
            note = orjson.loads(kept.value)
            if note["source"]["kind"] in (KIND, *_EARLIER):
                return int(note["order"]) if note["source"]["kind"] == KIND else 0
        return max((order for model, _, order in self._notes(rows) if model == name), default=None)


def _end_ms(hour: bytes) -> int | None:
    """Return when the last use ended, None when an earlier release has noted the use without its hour."""
    return (hour_from_iso(hour.decode()) + 1) * HOUR_MS if hour else None


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
