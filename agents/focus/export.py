"""FOCUS files out of the ledger: a folder a UTC day with `focus.csv` and `focus.parquet` in it.

Where a provider's bill of a day is complete, it is shared among the usage of the connections it is about and takes the
place of their estimates, so that a file never holds the same money twice. `x_CostBasis` says of each row
which of the two it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tallystream.agents.focus.columns import Version
from tallystream.agents.focus.files import write_csv, write_parquet
from tallystream.agents.focus.rows import UNKNOWN, PayingAccount, Row, estimate_rows, is_plan
from tallystream.agents.focus.shared import shared_rows
from tallystream.agents.ledger.queries.export import FIELDS, DayWriter, day_name, day_rows
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.pricing.book import Book
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.money import to_usd
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.usage import ATTRIBUTION_KEYS

Basis = Literal["estimate", "reconciled"]
COMPLETE = ("provisional", "settled")
"""States of a statement whose bill is of the whole day."""
DAY_SECONDS = 86_400


class FocusExport:
    """The rows of a deployment's days.

    `statements` are the newest of `reconciliation.days`; with the basis `estimate` they are passed over. `links` is
    the operator's map of connections to accounts.
    """

    def __init__(
        self,
        database: Database,
        statements: Iterable[Mapping[str, Any]],
        book: Book,
        *,
        links: Iterable[AccountLink] = (),
        basis: Basis = "reconciled",
        version: Version = "1.4",
    ) -> None:
        self._database, self._book, self._version = database, book, version
        self._accounts = accounts_of(links)
        self._bills: dict[str, list[Mapping[str, Any]]] = {}
        for statement in statements:
            complete = statement["state"] in COMPLETE and statement["bill_usd"] is not None
            if basis == "reconciled" and complete:
                self._bills.setdefault(statement["day"], []).append(statement)

    @property
    def billed_days(self) -> set[int]:
        """Return the days since the epoch that have a complete bill."""
        return {int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) // DAY_SECONDS for day in self._bills}

    def rows(self, day: int) -> Iterator[Row]:
        """Yield the rows of a day since the epoch: estimates by hour, then bills, shared among those who used them."""
        bills = sorted(self._bills.get(day_name(day), []), key=lambda one: (one["provider"], one["scope"]))
        place = {(bill["provider"], name): number for number, bill in enumerate(bills) for name in bill["connections"]}
        used: list[list[dict[str, Any]]] = [[] for _ in bills]
        for row in day_rows(self._database, day):
            document = _document(row)
            at = document["provider"], document["connection_id"]
            if at in place and not is_plan(document["buckets"][0]):
                used[place[at]].append(document)
            else:
                yield from estimate_rows(document, self._book, self._accounts.get(at, UNKNOWN), self._version)
        for bill, documents in zip(bills, used, strict=True):
            yield from shared_rows(bill, documents, self._book, self._version)

    def files(self, *, csv_alone: bool = False) -> dict[str, DayWriter]:
        """Return the writers of a day's files, by name.

        Parquet holds 18 decimals. A bill may have more, which raises InexactAmountError: then write CSV alone.
        """
        writers: dict[str, DayWriter] = {"focus.csv": self._csv}
        if not csv_alone:
            writers["focus.parquet"] = self._parquet
        return writers

    def _csv(self, path: Path, day: int) -> int:
        with path.open("w", newline="", encoding="utf-8") as file:
            return write_csv(self.rows(day), file, self._version)

    def _parquet(self, path: Path, day: int) -> int:
        return write_parquet(self.rows(day), path, self._version)


def accounts_of(links: Iterable[AccountLink]) -> dict[tuple[str, str], PayingAccount]:
    """Return the account of each (provider, connection). A plan pays only where no account of the API is mapped, as in
    the reconciliation.
    """
    found: dict[tuple[str, str], list[AccountLink]] = {}
    for link in links:
        found.setdefault((link.provider, link.connection_id), []).append(link)
    return {
        place: PayingAccount.only(
            sorted({link.project_id for link in mine if link.project_id is not None}),
            sorted({link.api_key_id for link in mine if link.api_key_id is not None}),
            plan=all(link.billing == "plan" for link in mine),
        )
        for place, mine in found.items()
    }


def _document(row: Iterable[Any]) -> dict[str, Any]:
    """Return a row of the ledger as a SessionHourCost with one bucket."""
    values = dict(zip(FIELDS, row, strict=True))
    bucket = {name: values[name] for name in ("model", "service_tier", "speed", "book", *SUM_COUNTS)}
    bucket["cost_usd"] = None if values["cost_usd"] is None else to_usd(values["cost_usd"])
    bucket["attribution"] = {name: values[name] for name in ATTRIBUTION_KEYS if values[name] is not None}
    head = {name: values[name] for name in ("connection_id", "session_id", "client", "provider")}
    return head | {"hour": hour_iso(values["hour"]), "buckets": [bucket]}
