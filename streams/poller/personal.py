"""Replaces people's addresses and names in providers' responses before they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ADDRESSES = frozenset({"user_email", "email", "email_address"})
"""Fields that contain a person's address, documented or not."""
NAMES = frozenset({"user_name"})
"""Fields that hold a person's name. `name` counts as one if the row also has an address."""


def without_people(rows: list[dict[str, Any]], pseudonym: Callable[[str], str] | None) -> list[dict[str, Any]]:
    """Return the rows with each address and name as its keyed hash, or null without a key to hash with."""
    return [_object(row, pseudonym) for row in rows]


def _object(value: dict[str, Any], pseudonym: Callable[[str], str] | None) -> dict[str, Any]:
    personal = NAMES | ({"name"} if value.keys() & ADDRESSES else set()) | ADDRESSES
    return {
        key: _person(item, pseudonym) if key in personal else _value(item, pseudonym) for key, item in value.items()
    }


def _value(value: object, pseudonym: Callable[[str], str] | None) -> Any:
    if isinstance(value, dict):
        return _object(value, pseudonym)
    return [_value(item, pseudonym) for item in value] if isinstance(value, list) else value


def _person(value: object, pseudonym: Callable[[str], str] | None) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return pseudonym(value) if pseudonym is not None else None
