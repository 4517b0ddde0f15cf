"""Exports files for analysts: one folder per day with the day's buckets, as Parquet or CSV.

A day's file is written next to the old one and replaces it when it is complete, so repeated exports never duplicate
rows. Only whole UTC days are written, because a partial day must not replace a complete one.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tallystream.agents.ledger.amounts import join_money
from tallystream.agents.ledger.schema import COLUMN, MONEY
from tallystream.agents.ledger.store.database import Database, Row
from tallystream.schemas.errors import UsageError
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.money import to_usd
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.usage import ATTRIBUTION_KEYS

if TYPE_CHECKING:
    import pyarrow as pa

HOURS = 24
GROUP = 50_000
"""Rows of a row group."""
TEXTS = ("connection_id", "session_id", "client", "provider", "model", "service_tier", "speed", "book")
FIELDS = ("hour", *TEXTS, *ATTRIBUTION_KEYS, *SUM_COUNTS, "cost_usd", "reported_cost_usd", "version")
"""Columns of a file, in their order."""
PRECISION, SCALE = 38, 12
NAME = "session-hours"
DayWriter = Callable[[Path, int], int]
"""Writes one file of a day since the epoch, and returns how many rows it has."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    days: int
    rows: int
    removed: int
    """Removed files of days that are now empty."""


def export(
    database: Database,
    out: Path,
    writers: Mapping[str, DayWriter],
    *,
    since: int | None,
    until: int | None,
    further: Iterable[int] = (),
) -> Exported:
    """Write the days that have an hour in [since, until); call it within `reading`.

    `writers` gives the files of each day's folder, by name. `further` are days, since the epoch, that have something to
    be written although the ledger has nothing of them.

    Raises:
        UsageError: the folder cannot be written.

    """
    first = None if since is None else since // HOURS
    last = None if until is None else (until - 1) // HOURS
    have = {int(day) for (day,) in database.rows("SELECT DISTINCT hour / 24 FROM hour_total")}.union(further)
    wanted = sorted(day for day in have if (first is None or day >= first) and (last is None or day <= last))
    rows = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        for day in wanted:
            written = [_write_day(out / f"day={day_name(day)}", name, write, day) for name, write in writers.items()]
            rows += max(written)
        removed = _remove_gone(out, writers, {day_name(day) for day in have}, first, last)
    except OSError as exc:
        raise UsageError(f"{out} cannot be written: {exc.strerror or exc}", "choose another --out") from exc
    return Exported(len(wanted), rows, removed)


def session_hour_files(
    database: Database, form: Literal["parquet", "csv"], cell: Callable[[str], str] = str
) -> dict[str, DayWriter]:
    """Return the writer of a day's buckets; `cell` makes text safe for programs that open a CSV file."""

    def write(path: Path, day: int) -> int:
        found = day_rows(database, day)
        return _parquet(path, found) if form == "parquet" else _csv(path, found, cell)

    return {f"{NAME}.{form}": write}


def _remove_gone(out: Path, names: Iterable[str], have: set[str], first: int | None, last: int | None) -> int:
    """Remove files of days in the range that are empty in the ledger."""
    removed = 0
    low, high = "" if first is None else day_name(first), "9999-99-99" if last is None else day_name(last)
    for file in (file for name in names for file in list(out.glob(f"day=*/{name}"))):
        day = file.parent.name.removeprefix("day=")
        if low <= day <= high and day not in have:
            file.unlink()
            removed += 1
            with suppress(OSError):
                file.parent.rmdir()  # only when it is empty
    return removed


def _write_day(folder: Path, name: str, write: DayWriter, day: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    # It begins with a dot, so that readers of whole folders ignore it.
    beside = folder / f".{name}.{os.getpid()}"
    try:
        rows = write(beside, day)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(folder / name)
    finally:
        beside.unlink(missing_ok=True)
    return rows


def day_rows(database: Database, day: int) -> Iterator[Row]:
    """Yield (hour, texts..., attribution..., counts..., cost and reported in pico-dollars, version)."""
    names = [
        "b.hour", "s.connection_id", "s.session_id", "l.client", "l.provider", "l.model", "l.service_tier", "l.speed",
        "l.book", *(f"a.{COLUMN[key]}" for key in ATTRIBUTION_KEYS), *(f"b.{name}" for name in SUM_COUNTS),
        *(f"b.{name}" for name in MONEY), "b.version",
    ]  # fmt: skip
    sql = (
        f"SELECT {', '.join(names)} FROM bucket b JOIN session s ON s.id = b.session JOIN line l ON l.id = b.line"
        " JOIN attribution a ON a.id = b.attribution WHERE b.hour >= ? AND b.hour < ?"
        " ORDER BY b.hour, s.connection_id, s.session_id, b.line, b.attribution"
    )
    for row in database.stream(sql, (day * HOURS, (day + 1) * HOURS)):
        *rest, cost_hi, cost_lo, reported_hi, reported_lo, version = row
        yield (*rest, join_money(cost_hi, cost_lo), join_money(reported_hi, reported_lo), version)


def _csv(path: Path, rows: Iterator[Row], cell: Callable[[str], str]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(FIELDS)
        for row in rows:
            hour, *rest, cost, reported, version = row
            money = ["" if pico is None else to_usd(pico) for pico in (cost, reported)]
            cells = ["" if one is None else cell(one) if isinstance(one, str) else one for one in rest]
            writer.writerow([hour_iso(hour), *cells, *money, version])
            count += 1
    return count


def _parquet(path: Path, rows: Iterator[Row]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema()
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            columns: list[Sequence[Any]] = list(zip(*group, strict=True))
            columns[0] = [datetime.fromtimestamp(hour * 3600, UTC) for hour in columns[0]]
            for place in (-3, -2):
                columns[place] = [None if pico is None else _decimal(pico) for pico in columns[place]]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(group)
    return count


def parquet_schema() -> pa.Schema:
    """Return the columns' types: times in UTC, whole numbers, and dollars as decimal128(38, 12)."""
    import pyarrow as pa

    money = pa.decimal128(PRECISION, SCALE)
    types: dict[str, Any] = dict.fromkeys((*TEXTS, *ATTRIBUTION_KEYS), pa.string())
    types |= dict.fromkeys((*SUM_COUNTS, "version"), pa.int64())
    types |= {"hour": pa.timestamp("s", "UTC"), "cost_usd": money, "reported_cost_usd": money}
    return pa.schema([(name, types[name]) for name in FIELDS])


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def _decimal(pico: int) -> Decimal:
    with localcontext() as context:
        context.prec = PRECISION + 2
        return Decimal(pico).scaleb(-SCALE)


def day_name(day: int) -> str:
    """Return the UTC date of a day since the epoch."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d")
