"""The figures in the records of one day, by model and project. Pure.

Resources are never added to one another; of two queries of one resource (other groupings, an earlier configuration) the
one polled last is used.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

import orjson

from tallystream.schemas import exact
from tallystream.schemas.billing.line_item import parse_line_item
from tallystream.schemas.openai import OpenAIRecord, cents_to_usd

COSTS, DASHBOARD = "/organization/costs", "/dashboard/billing/usage"
USAGE, LEGACY = "/organization/usage/", "/usage"
COMPLETIONS = f"{USAGE}completions"
MODEL_USAGE = frozenset(
    f"{USAGE}{name}"
    for name in ("completions", "embeddings", "moderations", "images", "audio_speeches", "audio_transcriptions")
)
"""Resources whose requests and tokens are added up to a day's figures: only all of them together are complete."""
CURRENCY = "usd"
MAX_COUNT = 2**53
_EXACT = Context(prec=400, traps=[Inexact])
"""Adds amounts of up to 60 digits before and after the point without losing one."""

Place = tuple[str | None, str | None]
"""Model and project."""


@dataclass
class Said:
    """The figures of a day's resources for one model and project; money in dollars."""

    billed: dict[str, Decimal] = field(default_factory=dict)
    used: dict[str, dict[str, int]] = field(default_factory=dict)


def concerns(resource: str) -> bool:
    """Tell whether a resource reports billing or usage."""
    return resource in (COSTS, DASHBOARD, LEGACY) or resource.startswith(USAGE)


def day_of(record: OpenAIRecord) -> str | None:
    """Return the UTC day a record's bucket begins in; None when it has no time."""
    return None if record.starts_at is None else f"{record.starts_at.astimezone(UTC):%Y-%m-%d}"


@dataclass(frozen=True)
class Lines:
    """The contents of a record: model and project, dollars, and counts of each of its rows."""

    resource: str
    query: str
    polled_at: datetime
    lines: list[tuple[Place, Decimal | None, dict[str, int]]]

    @classmethod
    def of(cls, record: OpenAIRecord) -> Lines:
        """Parse a record.

        Raises:
            ValueError: its rows are not valid for its resource.

        """
        try:
            lines = list(_lines(record.resource, record.exact_rows()))
            polled_at = record.polled_at.astimezone(UTC)
        except (KeyError, TypeError, AttributeError, ArithmeticError) as exc:
            raise ValueError(f"a row of {record.resource} has an unknown shape: {exc!r}") from exc
        return cls(record.resource, record.query, polled_at, lines)


def day_rows(records: Iterable[Lines]) -> dict[Place, tuple[Said, dict[str, datetime]]]:
    """Return what the newest records of one day say, by model and project, with each resource's newest poll."""
    speaks: dict[str, tuple[datetime, str]] = {}
    found = list(records)
    for record in found:
        polled = (record.polled_at, record.query)
        speaks[record.resource] = max(speaks.get(record.resource, polled), polled)
    rows: dict[Place, tuple[Said, dict[str, datetime]]] = {}
    for record in found:
        resource = record.resource
        if speaks[resource][1] != record.query:
            continue
        for place, dollars, counts in record.lines:
            said, times = rows.setdefault(place, (Said(), {}))
            times[resource] = max(times.get(resource, record.polled_at), record.polled_at)
            if dollars is not None:
                said.billed[resource] = _EXACT.add(said.billed.get(resource, Decimal(0)), dollars)
            if counts:
                sums = said.used.setdefault(resource, {})
                for name, count in counts.items():
                    sums[name] = min(sums.get(name, 0) + count, MAX_COUNT - 1)
    return rows


def _lines(resource: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Place, Decimal | None, dict[str, int]]]:
    """Yield (model and project, dollars, counts) of a resource's rows."""
    if resource == COSTS:
        _check_currencies(rows := list(rows))
    for row in rows:
        if resource == DASHBOARD:
            for item in row["line_items"]:
                yield (_model(item.get("name")), None), cents_to_usd(_amount(item["cost"])), {}
        elif resource == COSTS:
            yield (_model(row.get("line_item")), row.get("project_id")), _amount(row["amount"]["value"]), {}
        else:
            model = row.get("snapshot_id") if resource == LEGACY else row.get("model")
            yield (model or None, row.get("project_id") or None), None, _counts(row)


def _amount(value: Any) -> Decimal:
    """Return an amount, which OpenAI writes as a number or as a string.

    Raises:
        ValueError: it is neither, or not finite.

    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError(f"an amount is {value!r}")  # noqa: TRY004 - one kind of error for all amounts
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or abs(amount.adjusted()) > exact.MAX_DIGITS:
        raise ValueError(f"an amount is {str(value)[:40]!r}")
    return amount


def _check_currencies(rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse rows of another currency than dollars, with the amounts of each: they are never added up.

    Raises:
        ValueError: some are.

    """
    sums: dict[str, Decimal] = {}
    for row in rows:
        amount = row["amount"]
        if not isinstance(amount, Mapping):
            raise ValueError(f"the amount of {str(row.get('line_item'))[:80]!r} is {amount!r}")  # noqa: TRY004
        currency = str(amount.get("currency") or CURRENCY).lower()
        sums[currency] = _EXACT.add(sums.get(currency, Decimal(0)), _amount(amount["value"]))
    if sums.keys() - {CURRENCY}:
        said = ", ".join(f"{exact.plain(total)} {currency}" for currency, total in sorted(sums.items()))
        raise ValueError(f"amounts are not all in {CURRENCY}: {said}")


def _model(line_item: Any) -> str | None:
    """Return the model of a line item: "priority | gpt-5-2025-08-07, cached input" is of gpt-5-2025-08-07. A line that
    is for no model's tokens has none, and one that begins like a model's but counts something else has that model.
    """
    if not isinstance(line_item, str):
        return None
    line = parse_line_item(line_item)
    if line.product is None:
        return line.model
    name, comma, _ = line.product.partition(", ")
    return name if comma and name else None


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers that add up; times are numbers too, and do not."""
    return {
        name: value
        for name, value in row.items()
        if type(value) is int and 0 <= value < MAX_COUNT and not name.endswith(("timestamp", "_time", "created"))
    }


def as_row(
    day: str, model: str | None, project: str | None, said: Said, polled: Mapping[str, datetime]
) -> dict[str, Any]:
    """Return a BilledDay without its version; what nothing is said of any more is one with empty lists."""
    return {
        "day": day,
        "model": model,
        "project_id": project,
        "billed": [
            {"resource": resource, "usd": exact.plain(dollars), "polled_at": _iso(polled[resource])}
            for resource, dollars in sorted(said.billed.items())
        ],
        "used": [
            {"resource": resource, "counts": dict(sorted(counts.items())), "polled_at": _iso(polled[resource])}
            for resource, counts in sorted(said.used.items())
        ],
    }


def add_known(
    rows: dict[Place, tuple[Said, dict[str, datetime]]], known: Mapping[str, Any], held: Container[str]
) -> None:
    """Add the figures of held resources from a published row."""
    said, polled = Said(), dict[str, datetime]()
    for billed in known["billed"]:
        if billed["resource"] in held:
            said.billed[billed["resource"]] = Decimal(billed["usd"])
            polled[billed["resource"]] = datetime.fromisoformat(billed["polled_at"])
    for used in known["used"]:
        if used["resource"] in held:
            said.used[used["resource"]] = used["counts"]
            polled[used["resource"]] = datetime.fromisoformat(used["polled_at"])
    if not polled:
        return
    have, times = rows.setdefault((known["model"], known["project_id"]), (Said(), {}))
    have.billed |= said.billed
    have.used |= said.used
    times |= polled


def content(row: Mapping[str, Any]) -> bytes:
    """Return the content of a row without the poll times, whose change alone is not a change of the row."""
    said = {
        part: [{name: value for name, value in one.items() if name != "polled_at"} for one in row[part]]
        for part in ("billed", "used")
    }
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
