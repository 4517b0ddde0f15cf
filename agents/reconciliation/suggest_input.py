"""Collects the hourly tokens of connections and keys from the topics, as input of suggestions."""

from __future__ import annotations

from datetime import UTC

import orjson

from tallystream.agents.reconciliation import bill_anthropic, bill_openai
from tallystream.agents.reconciliation.suggest import Hours
from tallystream.schemas.openai import OpenAIRecord
from tallystream.schemas.usage import DISJOINT_COUNTS
from tallystream.schemas.versions import Pair, find_version, supersedes


class Collected:
    """Takes messages in the topics' order, and returns tokens by hour."""

    def __init__(self) -> None:
        self.projects_of: dict[str, str] = {}
        self._records: dict[bytes, OpenAIRecord] = {}
        self._rows: dict[bytes, tuple[Pair, str, str, int]] = {}

    def record(self, key: bytes | None, value: bytes | None) -> None:
        """Add a message of `openai.records`; unreadable ones are skipped."""
        if key is None or value is None:
            return
        try:
            record = OpenAIRecord.model_validate_json(value)
        except ValueError:
            return
        have = self._records.get(key)
        if record.resource in (bill_openai.HOURLY, bill_anthropic.USAGE) and (
            have is None or record.polled_at >= have.polled_at
        ):
            self._records[key] = record

    def row(self, key: bytes | None, value: bytes | None) -> None:
        """Add a row of `cost.session-hours`; unreadable ones are skipped."""
        version = find_version(value)
        if key is None or value is None or version is None:
            return
        have = self._rows.get(key)
        if not supersedes(version, have and have[0]):
            return
        try:
            row = orjson.loads(value)
            tokens = sum(bucket[kind] for bucket in row["buckets"] for kind in DISJOINT_COUNTS)
            self._rows[key] = version, row["connection_id"], row["hour"], tokens
        except (ValueError, KeyError, TypeError):
            return

    def connections(self) -> dict[str, Hours]:
        """Return tokens by connection and hour."""
        out: dict[str, dict[str, int]] = {}
        for _, connection, hour, tokens in self._rows.values():
            hours = out.setdefault(connection, {})
            hours[hour] = hours.get(hour, 0) + tokens
        return dict(out)

    def keys(self) -> dict[str, Hours]:
        """Return tokens by key and hour."""
        out: dict[str, dict[str, int]] = {}
        for record in self._records.values():
            for row in record.exact_rows():
                group = row.get("group", row)
                key, project = group.get("api_key_id"), group.get("project_id") or group.get("workspace_id")
                if not isinstance(key, str):
                    continue
                if isinstance(project, str):
                    self.projects_of[key] = project
                hour = row.get("starting_at") or (
                    f"{record.starts_at.astimezone(UTC):%Y-%m-%dT%H:00:00Z}" if record.starts_at else ""
                )
                hours = out.setdefault(key, {})
                hours[hour] = hours.get(hour, 0) + _tokens(row)
        return dict(out)


def _tokens(row: dict[str, object]) -> int:
    used = row.get("usage")
    if isinstance(used, dict):
        total = used.get("total_tokens")
        return total if isinstance(total, int) else 0
    return sum(bill_openai.token_kinds(row).values())
