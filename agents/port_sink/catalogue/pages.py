"""Compares a dashboard in Port with ours, and puts ours into it. What users added to the page, and how they arranged
its widgets, is kept.

Source of the shape (the pages API is not in Port's published OpenAPI): port-labs/port-skills,
skills/port-dashboards/references/dashboards.md. A page has one widget `dashboard-widget` with `widgets` and `layout`:
rows of at most four columns, of sizes from 3 to 12 that add up to 12, at least 400 high, one column for each widget.
Pages are created by POST /v1/pages and changed by PATCH /v1/pages/{identifier}.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from tallystream.agents.port_sink.blueprints.sync import BlueprintDifference, compare

Page = dict[str, Any]
HEIGHT = 400
FULL = 12
_OWN = ("title", "icon", "description")


def fitting(page: Page, blueprints: Container[str]) -> Page:
    """Return a page without the widgets that show blueprints which Port does not have."""
    board = page["widgets"][0]
    kept = [one for one in board["widgets"] if all(name in blueprints for name in _blueprints(one))]
    names = {one["id"] for one in kept}
    rows = []
    for row in board["layout"]:
        left = [column for column in row["columns"] if column["id"] in names]
        if left:
            sizes = _sizes([column["size"] for column in left])
            columns = [{**column, "size": size} for column, size in zip(left, sizes, strict=True)]
            rows.append({**row, "columns": columns})
    return {**page, "widgets": [{**board, "widgets": kept, "layout": rows}]}


def differences(ours: Page, theirs: Page | None) -> list[BlueprintDifference]:
    """Return the changes that applying our page would make."""
    where = f"page {ours['identifier']}"
    if theirs is None:
        return [BlueprintDifference(where, "missing", "", None, ours)]
    found: list[BlueprintDifference] = []
    for name in _OWN:
        found += compare(where, name, ours[name], theirs.get(name))
    have = _widgets(theirs)
    for one in ours["widgets"][0]["widgets"]:
        path = f"widgets.{one['id']}"
        if one["id"] not in have:
            found.append(BlueprintDifference(where, "added", path, None, one))
        else:
            found += compare(where, path, one, have[one["id"]])
    return found


def merged(ours: Page, theirs: Page) -> Page:
    """Return the fields of their page with ours put into them: our widgets as we have them, theirs as they are, and new
    ones in rows below the existing ones.
    """
    board = ours["widgets"][0]
    mine = {one["id"]: one for one in board["widgets"]}
    boards = theirs.get("widgets") or [{**board, "widgets": [], "layout": []}]
    have = _widgets(theirs)
    done = []
    for number, given in enumerate(boards):
        widgets = [{**one, **mine[one["id"]]} if one.get("id") in mine else one for one in given.get("widgets", ())]
        layout = list(given.get("layout", ()))
        if number == 0:
            new = [one for name, one in mine.items() if name not in have]
            widgets += new
            layout += [{"height": HEIGHT, "columns": [{"id": one["id"], "size": FULL}]} for one in new]
        done.append({**given, "widgets": widgets, "layout": layout})
    return {**{name: ours[name] for name in _OWN}, "widgets": done}


def _widgets(page: Mapping[str, Any]) -> dict[str, Any]:
    return {one["id"]: one for board in page.get("widgets") or () for one in board.get("widgets", ()) if "id" in one}


def _blueprints(value: object) -> Iterator[str]:
    """Yield the blueprints that a widget shows."""
    if isinstance(value, Mapping):
        if isinstance(value.get("blueprint"), str):
            yield value["blueprint"]
        for item in value.values():
            yield from _blueprints(item)
    elif isinstance(value, list):
        for item in value:
            yield from _blueprints(item)


def _sizes(sizes: list[int]) -> list[int]:
    """Return sizes in the same order that add up to the whole width."""
    share, more = divmod(FULL - sum(sizes), len(sizes))
    return [size + share + (1 if number < more else 0) for number, size in enumerate(sizes)]
