"""The published statements, their versions, and the statements to be published. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import orjson

from tallystream.agents.reconciliation import decimals
from tallystream.agents.reconciliation.split import CAUSES
from tallystream.schemas import keys
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.streams.kafka.errors import TopicRecreatedError

ASIDE = ("as_of", "telemetry_as_of", "restated", "version")
"""Fields whose change alone is not a change of the statement."""
EMPTY: dict[str, Any] = {
    "state": "settled", "reason": "this scope no longer has any data for this day", "as_of": None,
    "telemetry_as_of": None, "connections": [], "projects": [], "api_keys": [], "bill_usd": "0", "estimate_usd": "0",
    "difference_usd": "0", "causes": dict.fromkeys(CAUSES, "0"), "seen_tokens": 0, "billed_tokens": 0,
    "discount_ratio": None, "other_currencies": {}, "cells": [],
}  # fmt: skip
COMPLETE = frozenset({"provisional", "settled"})


class PublishedStatements:
    """The statements as readers of `reconciliation.days` have them."""

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[str, Any]] = {}
        self._overtaken: set[bytes] = set()
        self._doubtful: set[tuple[str, str]] = set()
        self._fresh = True
        """Whether `settle` has not been called yet, so that everything was read without interruption."""

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Add a statement from the topic. One that follows a newer version of itself comes from an agent that was
        suspended: compaction would keep it, so the newer one is published again.

        Raises:
            ValueError: it is not a statement, or does not match its key; nothing is changed.

        """
        if value is None:
            if key in self._rows:
                self._overtaken.add(key)
                self._doubt(key)
            return
        if ReconciledDay.model_validate_json(value).key != key:
            raise ValueError("not the key of this statement")
        row = orjson.loads(value)
        known = self._rows.get(key)
        if known is not None and row["version"] < known["version"]:
            self._overtaken.add(key)
            self._doubt(key)
            return
        if not self._fresh and (known is None or content(row) != content(known)):
            self._doubt(key)
        self._overtaken.discard(key)
        self._rows[key] = row

    def doubtful(self) -> set[tuple[str, str]]:
        """Return each (provider, day) whose statements another agent has changed."""
        return self._doubtful

    def settle(self) -> None:
        """Note that everything changed or doubtful has been examined."""
        self._doubtful.clear()
        self._fresh = False

    def state(self, provider: str, day: str) -> str | None:
        """Return the state all statements of a day have, None if they differ or do not exist."""
        states = {row["state"] for row in self._of(provider, day).values()}
        return states.pop() if len(states) == 1 else None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return the statements that are published."""
        return iter(self._rows.values())

    def changed(
        self, provider: str, day: str, statements: Mapping[str, dict[str, Any]], positions: int
    ) -> list[tuple[bytes, bytes]]:
        """Return the statements of a day that differ from the published ones, as messages.

        Raises:
            TopicRecreatedError: a published one is based on more data than we have read.

        """
        gone = {
            row["scope"]: {name: row[name] for name in ("provider", "scope", "day")} | EMPTY
            for row in self._of(provider, day).values()
            if row["scope"] not in statements
        }
        out = []
        for scope, statement in {**statements, **gone}.items():
            key = keys.join(provider, scope, day)
            before = self._rows.get(key)
            if before is not None and key not in self._overtaken and content(statement) == content(before):
                continue
            row = statement | {"restated": _restated(before, statement), "version": self._version(before, positions)}
            self._rows[key] = row
            self._overtaken.discard(key)
            out.append((key, orjson.dumps(row)))
        return out

    def _version(self, before: Mapping[str, Any] | None, positions: int) -> list[int]:
        generation, last = before["version"] if before is not None else (0, -1)
        if positions >= last:
            return [generation, positions]
        if not self._fresh:
            raise TopicRecreatedError(f"a statement was made of {last} records in all, only {positions} are there")
        return [generation + 1, positions]

    def _of(self, provider: str, day: str) -> dict[bytes, dict[str, Any]]:
        return {
            key: row for key, row in self._rows.items() if row["provider"] == provider and row["day"] == day
        }  # fmt: skip

    def _doubt(self, key: bytes) -> None:
        provider, _, day = keys.split(key)
        self._doubtful.add((provider, day))


def content(row: Mapping[str, Any]) -> bytes:
    """Return the content of a statement."""
    return orjson.dumps({name: value for name, value in row.items() if name not in ASIDE}, option=orjson.OPT_SORT_KEYS)


def _restated(before: Mapping[str, Any] | None, statement: Mapping[str, Any]) -> Any:
    """Return the change of a bill that was complete before; earlier changes are kept."""
    if before is None:
        return None
    if any(before[name] != statement[name] for name in ("projects", "api_keys")) or statement["as_of"] is None:
        return None  # the map has changed, so the bill differs without a restatement
    unchanged = before["bill_usd"] == statement["bill_usd"] or statement["bill_usd"] is None
    if unchanged or before["state"] not in COMPLETE or before["as_of"] is None:
        return before.get("restated")
    old, new = before["causes"], statement["causes"]
    return {
        "from_as_of": before["as_of"],
        "from_bill_usd": before["bill_usd"],
        "change_usd": _less(statement["bill_usd"], before["bill_usd"]),
        "causes": {name: _less(new[name], old[name]) for name in CAUSES},
    }


def _less(one: str, other: str) -> str:
    return decimals.text(Fraction(one) - Fraction(other))
