"""The largest cost tables for programs, put together by the ledger: the text of `cost_text`, sooner."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import orjson

from tallystream.agents.cost_query import FIELDS
from tallystream.agents.ledger.queries.cost_lines import OF_LINE, CostLines, LineForm
from tallystream.agents.ledger.queries.coverage import seen_sessions
from tallystream.agents.ledger.store.database import Database, Row
from tallystream.agents.seen_share import seen_share
from tallystream.cli.output.cost_text import ROWS_AT_ONCE, csv_header, json_head
from tallystream.cli.output.text import csv_text, escape_json
from tallystream.schemas.errors import TallystreamError, UnreachableError
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.usage import ATTRIBUTION_KEYS

_BOOK, _ATTRIBUTION = FIELDS.index("book"), FIELDS.index("attribution")
_BETWEEN = (FIELDS[FIELDS.index("requests") : _BOOK], FIELDS[_BOOK + 1 : _ATTRIBUTION])
"""The numbers before and after the book's name; after the attribution there is the version alone."""


class _Kept(dict[int, str]):
    """Texts by number, each made when it is first asked for, so that the first row does not wait for all of them."""

    def __init__(self, text_of: Callable[[int], str]) -> None:
        super().__init__()
        self._text_of = text_of

    def __missing__(self, number: int) -> str:
        text = self[number] = self._text_of(number)
        return text


class _Lines:
    """Rows with their names; subclasses know how a format writes them."""

    form: LineForm
    end = ""
    """Ends a row."""

    def __init__(self, database: Database, lines: CostLines) -> None:
        query = lines.query
        self._hourly, self._shares = "hour" in query.dimensions, query.shares
        self._single = "session_id" in query.dimensions
        self._lines, self._attributions, self._sessions = lines.lines, lines.attributions(), lines.sessions()
        self._seen = seen_sessions(database) if self._shares else {}
        self._rows = lines.rows(self.form, self._names)

    def texts(self) -> Iterator[str]:
        """Yield the text of each row."""
        of_line = {line: self._of_line(names) for line, names in self._lines.items()}
        of_attribution = _Kept(
            lambda number: self._of_attribution(self._attributions[number] if self._single else None)
        )
        sessions = self._sessions
        hours = _Kept(self._hour if self._hourly else lambda _: "")
        end = (self._share(None) if self._shares else "") + self.end
        for line, attribution, session, hour, _, _, _, first, second, third in self._rows:
            if self._seen:
                one = self._seen.get((self._lines[line][0], self._sessions[session]))
                end = self._share(None if one is None else seen_share([one])) + self.end
            head, middle, book = of_line[line]
            yield (
                f"{head}{self._name(sessions.get(session))}{hours[hour]}{middle}{first}{book}{second}"
                f"{of_attribution[attribution]}{third}{end}"
            )

    def _names(self, row: Row) -> tuple[Any, ...]:
        """Return what decides between rows of equal rank, as in `cost_table`."""
        line, attribution, session = row[:3]
        connection, client, *others = self._lines[line]
        names = (connection, client, self._sessions.get(session), *others, *self._attributions[attribution])
        return tuple((name is not None, name or "") for name in names)

    def _of_line(self, names: Sequence[str | None]) -> tuple[str, str, str]:
        """Return the texts before the session, before the numbers, and of the book."""
        raise NotImplementedError

    def _of_attribution(self, values: Sequence[str | None] | None) -> str:
        raise NotImplementedError

    def _name(self, name: str | None) -> str:
        raise NotImplementedError

    def _hour(self, hour: int) -> str:
        raise NotImplementedError

    def _share(self, share: str | None) -> str:
        raise NotImplementedError


class _JsonLines(_Lines):
    form = LineForm(
        (
            *(",".join(f'"{name}":{{{name}}}' for name in names) + "," for names in _BETWEEN),
            ',"version":[{generation},{offset}]',
        ),
        "null", '"', "-",
    )  # fmt: skip

    end = "}"

    def _of_line(self, names: Sequence[str | None]) -> tuple[str, str, str]:
        said = [f'"{name}":{self._name(value)},' for name, value in zip(OF_LINE, names, strict=True)]
        return "{" + "".join(said[:2]) + '"session_id":', "," + "".join(said[2:4]), said[4]

    def _of_attribution(self, values: Sequence[str | None] | None) -> str:
        if values is None:
            return '"attribution":null'
        named = {name: value for name, value in zip(ATTRIBUTION_KEYS, values, strict=True) if value is not None}
        return '"attribution":' + orjson.dumps(named).decode()

    def _name(self, name: str | None) -> str:
        return orjson.dumps(name).decode()

    def _hour(self, hour: int) -> str:
        return f',"hour":"{hour_iso(hour)}"'

    def _share(self, share: str | None) -> str:
        return ',"seen_share":null' if share is None else f',"seen_share":"{share}"'


class _CsvLines(_Lines):
    form = LineForm(
        (
            *("".join(f"{{{name}}}," for name in names) for names in _BETWEEN),
            ",{generation}:{offset}",
        ),
        "", "", "'-",
    )  # fmt: skip

    def _of_line(self, names: Sequence[str | None]) -> tuple[str, str, str]:
        return self._cells(names[:2]) + ",", "," + self._cells(names[2:4]) + ",", self._cells(names[4:]) + ","

    def _of_attribution(self, values: Sequence[str | None] | None) -> str:
        return self._cells([None] * len(ATTRIBUTION_KEYS) if values is None else values)

    def _name(self, name: str | None) -> str:
        return self._cells([name])

    def _hour(self, hour: int) -> str:
        return f",{hour_iso(hour)}"

    def _share(self, share: str | None) -> str:
        return f",{share or ''}"

    @staticmethod
    def _cells(values: Sequence[str | None]) -> str:
        return ",".join(map(_cell, values))


def _cell(value: str | None) -> str:
    """Return a cell as `csv` writes it; `csv_text` leaves no line breaks."""
    text = "" if value is None else csv_text(value)
    if "," in text or '"' in text:
        doubled = text.replace('"', '""')
        return f'"{doubled}"'
    return text


def write_lines(database: Database, lines: CostLines, now_ns: int, form: str) -> None:
    """Print the rows on stdout as `form`, json or csv.

    Raises:
        UnreachableError: the database failed after the first rows; what was printed is incomplete.

    """
    out = sys.stdout
    json = form == "json"
    texts = (_JsonLines if json else _CsvLines)(database, lines).texts()
    some = list(islice(texts, ROWS_AT_ONCE))  # before anything is printed, so that a failure leaves another way
    if json:
        out.write(json_head(now_ns, complete=True))
    else:
        csv.writer(out, lineterminator="\r\n").writerow(csv_header(lines.query))
    before = "\n"
    while some:
        if json:
            out.write(before + escape_json(",\n".join(some)))
            before = ",\n"
        else:
            out.write("\r\n".join(some) + "\r\n")
        try:
            some = list(islice(texts, ROWS_AT_ONCE))
        except TallystreamError as exc:
            raise _cut_short(exc) from exc
    if json:
        out.write("\n]}\n")
    out.flush()


def _cut_short(exc: TallystreamError) -> UnreachableError:
    return UnreachableError(f"{exc.message}: the rows that were printed are not all", "run the command again")
