"""Rows as the sink's local copy holds them, in memory."""

from __future__ import annotations

from collections.abc import Iterator

from tallystream.streams.kafka.global_table import StoredRow


class StoredRows:
    """`documents.base.DocumentRows` on a dict."""

    def __init__(self) -> None:
        self.rows: dict[bytes, StoredRow] = {}

    def get(self, key: bytes) -> StoredRow | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, StoredRow]]:
        for key in sorted(self.rows):
            if key.startswith(prefix) and (after is None or key > after):
                yield key, self.rows[key]
