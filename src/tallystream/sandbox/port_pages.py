"""Pages of Port's interface: stored, and refused where Port's rules for dashboards are broken.

The rules beyond the shape (port-labs/port-skills, skills/port-dashboards/references/dashboards.md): the sizes of a
row's columns add up to 12, every column is a widget and every widget has one column, and identifiers are unique. That a
widget's blueprint exists is a rule of the sandbox alone: Port shows an empty widget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tallystream.sandbox.port_store import ChangeRefusedError, not_found

WIDTH = 12


class SandboxPages:
    """All pages, in memory."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[str, Any]] = {}

    def all(self) -> list[dict[str, Any]]:
        """Return the pages in the order they were made."""
        return list(self._pages.values())

    def get(self, identifier: str) -> dict[str, Any]:
        """Return one page.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        if identifier not in self._pages:
            raise not_found("page", identifier)
        return self._pages[identifier]

    def create(self, page: Mapping[str, Any], blueprints: Collection[str]) -> dict[str, Any]:
        """Create a page.

        Raises:
            ChangeRefusedError: it exists, or breaks a rule.

        """
        if page["identifier"] in self._pages:
            raise ChangeRefusedError(409, "identifier_taken", f"a page '{page['identifier']}' already exists")
        return self._put(dict(page), blueprints)

    def change(self, identifier: str, fields: Mapping[str, Any], blueprints: Collection[str]) -> dict[str, Any]:
        """Replace the given fields of a page.

        Raises:
            ChangeRefusedError: it does not exist, or breaks a rule.

        """
        return self._put(self.get(identifier) | dict(fields) | {"identifier": identifier}, blueprints)

    def delete(self, identifier: str) -> None:
        """Delete a page.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        self.get(identifier)
        del self._pages[identifier]

    def _put(self, page: dict[str, Any], blueprints: Collection[str]) -> dict[str, Any]:
        for board in page["widgets"]:
            if problem := _problem(board, blueprints):
                raise ChangeRefusedError(422, "invalid_request", problem)
        self._pages[page["identifier"]] = page
        return page


def _problem(board: Mapping[str, Any], blueprints: Collection[str]) -> str | None:
    widgets = [one["id"] for one in board["widgets"]]
    placed = [column["id"] for row in board["layout"] for column in row["columns"]]
    if sorted(placed) != sorted(set(widgets)) or len(widgets) != len(set(widgets)):
        return "layout: every column must be a widget, and every widget must have one column"
    for row in board["layout"]:
        if sum(column["size"] for column in row["columns"]) != WIDTH:
            return f"layout: column sizes must sum to {WIDTH}"
    for one in board["widgets"]:
        for shown in (one, *one.get("lines", ())):
            if "blueprint" in shown and shown["blueprint"] not in blueprints:
                return f"widgets/{one['id']}: the blueprint '{shown['blueprint']}' was not found"
    return None
