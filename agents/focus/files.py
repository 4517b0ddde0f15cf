"""FOCUS rows as CSV (RFC 4180) and as Parquet with decimal128(38, 18)."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from tallystream.agents.focus.columns import DECIMAL_PRECISION, DECIMAL_SCALE, DECIMALS, TIMES, Version, columns
from tallystream.agents.focus.rows import Row
from tallystream.schemas.errors import PermanentError

BATCH = 10_000
"""Rows held in memory at a time."""


class InexactAmountError(PermanentError):
    """An amount has more decimals than a Parquet column of FOCUS can hold; CSV has no such limit."""

    code = "inexact_amount"


def write_csv(rows: Iterable[Row], out: IO[str], version: Version = "1.4") -> int:
    """Write rows and return how many; decimals without exponent, times in UTC, null as an empty cell."""
    names = columns(version)
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    count = 0
    for row in rows:
        writer.writerow([_text(row[name]) for name in names])
        count += 1
    return count


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text if "." in text else f"{text}.0"  # readers infer an integer type for a column of whole numbers
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # Descriptions and tags come from clients, so they must not be interpreted as formulas by a spreadsheet.
    text = str(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def parquet_schema(version: Version = "1.4") -> pa.Schema:
    """Return the columns with their Parquet types."""
    amount, moment = pa.decimal128(DECIMAL_PRECISION, DECIMAL_SCALE), pa.timestamp("us", tz="UTC")
    types = {
        name: amount if name in DECIMALS else moment if name in TIMES else pa.string() for name in columns(version)
    }
    return pa.schema(list(types.items()))


def write_parquet(rows: Iterable[Row], path: Path, version: Version = "1.4") -> int:
    """Write rows and return how many.

    Raises:
        InexactAmountError: an amount has more than 18 decimals.

    """
    schema, count, batch = parquet_schema(version), 0, list[Row]()
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(_table(batch, schema))
            batch.clear()

        for row in rows:
            batch.append(row)
            count += 1
            if len(batch) == BATCH:
                flush()
        flush()
    return count


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    for row in rows:
        for name in DECIMALS:
            value = row[name]
            if value is not None and -value.as_tuple().exponent > DECIMAL_SCALE:
                raise InexactAmountError(
                    f"{name} {value} of {row['ChargeDescription']!r} has more than {DECIMAL_SCALE} decimals",
                    "write CSV alone: --format focus-csv",
                )
    return pa.Table.from_pylist(rows, schema=schema)
