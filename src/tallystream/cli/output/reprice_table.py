"""The table of `tallystream reprice`: costs by the present book and by another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from tallystream.cli.output.consoles import console

if TYPE_CHECKING:
    from tallystream.agents.session_cost.reprice import RepriceKey, RepriceSums


def rows_of(
    found: Mapping[RepriceKey, RepriceSums], by: Literal["model", "team"]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows, the largest difference first, and their total."""
    from tallystream.agents.session_cost.reprice import RepriceSums

    groups: dict[tuple[str | None, ...], RepriceSums] = {}
    total = RepriceSums()
    for key, sums in found.items():
        if sums.requests:
            for into in (groups.setdefault(_group(key, by), RepriceSums()), total):
                for name in RepriceSums.__slots__:
                    setattr(into, name, getattr(into, name) + getattr(sums, name))
    names = ("team",) if by == "team" else ("provider", "model", "service_tier")
    ordered = sorted(
        groups.items(), key=lambda item: (-abs(item[1].other_cost - item[1].cost), [one or "" for one in item[0]])
    )
    return [dict(zip(names, key, strict=True)) | _document(sums) for key, sums in ordered], _document(total)


def _group(key: RepriceKey, by: Literal["model", "team"]) -> tuple[str | None, ...]:
    return (key.team,) if by == "team" else (key.provider, key.model, key.service_tier)


def _document(sums: RepriceSums) -> dict[str, Any]:
    from tallystream.schemas.money import to_usd

    return {
        "requests": sums.requests,
        "total_tokens": sums.tokens,
        "cost_usd": to_usd(sums.cost),
        "other_cost_usd": to_usd(sums.other_cost),
        "difference_usd": to_usd(sums.other_cost - sums.cost),
        "unpriced_requests": sums.unpriced,
        "other_unpriced_requests": sums.other_unpriced,
    }


def show(rows: list[dict[str, Any]], total: dict[str, Any], by: str) -> None:
    """Print the rows that differ, or all if none does. Amounts are rounded; `--json` has them exactly."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from tallystream.cli.output.text import visible

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    grid.add_column("Team" if by == "team" else "Model", f"{len(rows):,} rows", overflow="fold")
    columns = (
        ("Requests", "requests"), ("Unpriced now", "unpriced_requests"), ("then", "other_unpriced_requests"),
        ("Cost now", "cost_usd"), ("then", "other_cost_usd"), ("Difference", "difference_usd"),
    )  # fmt: skip
    for title, name in columns:
        grid.add_column(title, _cell(total[name]), justify="right")
    same = [row for row in rows if _same(row)]
    for row in rows if len(same) == len(rows) else [row for row in rows if row not in same]:
        name = row["team"] or "(none)" if by == "team" else " ".join(filter(None, (row["model"], row["service_tier"])))
        grid.add_row(Text(visible(name)), *(_cell(row[name]) for _, name in columns))
    console.print(grid)
    if 0 < len(same) < len(rows):
        console.print(f"{len(same):,} of the rows cost the same by both books, and are not shown.", markup=False)


def _same(row: dict[str, Any]) -> bool:
    same: bool = row["cost_usd"] == row["other_cost_usd"] and row["unpriced_requests"] == row["other_unpriced_requests"]
    return same


def _cell(value: int | str) -> str:
    from tallystream.cli.output.text import dollars

    if isinstance(value, int):
        return f"{value:,}"
    return f"-{dollars(value[1:])}" if value.startswith("-") else dollars(value)
