"""The fleet's truth: the rows that the cost tables must show for the acknowledged requests.

A response is acknowledged once any request with its record was answered 200: it counts exactly once. One that was only
in requests with another answer, or none, is unknown: it counts once or not at all. The rest was never sent.

The truth file holds the config and one byte a response; rows come from these, for a fleet can always be played again.
It is therefore cheap to write while the load runs. The file of a killed simulator is valid, too; outcomes that were not
written yet count as unknown.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tallystream.schemas.errors import UsageError
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.usage import TOKEN_COUNTS
from tallystream.simulator.fleet import Fleet
from tallystream.simulator.model import Request, Response
from tallystream.simulator.options import HOUR_NS, FleetConfig
from tallystream.simulator.prices import dollars

FORMAT = 1
PICO = Decimal(10) ** 12
FIELDS = (
    "requests", *TOKEN_COUNTS, "total_tokens", "unpriced_requests", "cost_pico", "reported_pico",
)  # fmt: skip
"""What a row adds up; money as a whole number of pico-dollars."""
Sums = tuple[int, ...]
"""One number for each of `FIELDS`."""
_NOTHING: Sums = (0,) * len(FIELDS)
_UNSENT, _UNKNOWN, _ACKNOWLEDGED = 0, 1, 2


class Key(NamedTuple):
    """What keeps rows apart; the user is not part of it, for rows show only a hash of the name."""

    client: str
    session_id: str
    hour: str
    model: str
    service_tier: str | None
    attribution: tuple[tuple[str, str], ...]


def order(key: Key) -> tuple[Any, ...]:
    """Sort rows by time, then by session."""
    return key.hour, key.session_id, key.model, key.service_tier or "", key.attribution


def key_of(response: Response) -> Key:
    """Return the row the response belongs to."""
    session = response.session
    return Key(
        session.client,
        session.session_id,
        hour_iso(response.at_ns // HOUR_NS),
        response.model,
        response.service_tier,
        session.attribution,
    )


def sums_of(response: Response) -> Sums:
    """Return what the response adds to its row; this asks the price book."""
    cost = dollars(response)
    pico = 0 if cost is None else int(cost * PICO)
    if cost is not None and pico != cost * PICO:
        raise ArithmeticError(f"{cost} is not a whole number of pico-dollars")
    return (
        1, response.input_uncached, response.cache_read, response.cache_write_5m, response.cache_write_1h,
        response.output, response.reasoning, response.tool, response.total_tokens, int(cost is None), pico,
        response.reported_pico or 0,
    )  # fmt: skip


def add(a: Sums, b: Sums) -> Sums:
    """Add, number by number."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def money_of(sums: Sums) -> dict[str, str | None]:
    """Return amounts as rows write them: decimal strings, None when nothing could be priced, and none was reported."""
    row = dict(zip(FIELDS, sums, strict=True))
    unpriced = row["unpriced_requests"] == row["requests"]
    return {
        "cost_usd": None if unpriced else _usd(row["cost_pico"]),
        "reported_cost_usd": _usd(row["reported_pico"]) if row["reported_pico"] else None,
    }


def _usd(pico: int) -> str:
    return format((Decimal(pico) / PICO).normalize(), "f")


def _counts_of(sums: Sums) -> dict[str, int]:
    return {name: count for name, count in zip(FIELDS, sums, strict=True) if not name.endswith("_pico")}


def row_of(key: Key, sums: Sums) -> dict[str, Any]:
    """Return a row with the fields of `cost session-hours` that a client can know."""
    row: dict[str, Any] = key._asdict() | {"attribution": dict(key.attribution)}
    return row | _counts_of(sums) | money_of(sums)


@dataclass
class Sent:
    """Counts of what left the fleet, whatever was answered."""

    bodies: Counter[str] = field(default_factory=Counter)
    """By signal."""
    records: int = 0
    token_records: int = 0
    copies: int = 0
    late: int = 0
    """Token records in late bodies."""
    resent: int = 0
    """Bodies posted again."""
    bytes: int = 0
    """Before compression."""


class Truth:
    """Records the outcome of each request; `compare` then judges rows, `write` saves it all.

    Call `begin` before a request leaves and `end` with what was answered: whatever is in between is unknown, so that a
    file written at any moment is right.
    """

    def __init__(self, config: FleetConfig) -> None:
        self.config = config
        self.sent = Sent()
        self.http: Counter[str] = Counter()
        """Answers by status; `none` counts requests without one."""
        self.final = False
        """Whether the fleet has stopped: before that, more may have been sent than is written here."""
        self._unknown: dict[int, Response] = {}
        self._unpriced: list[Response] = []
        self._states = bytearray(config.agents * (config.requests // config.agents + 1))
        self._rows: dict[Key, Sums] = {}

    def begin(self, request: Request) -> None:
        """Say that the request is about to leave."""
        sent = self.sent
        sent.bodies[request.signal] += 1
        sent.records += request.records
        sent.token_records += len(request.responses)
        sent.copies += request.copies
        sent.late += len(request.responses) if request.late else 0
        sent.resent += request.resent
        sent.bytes += len(request.body)
        for response in request.responses:
            if self._states[response.n] == _UNSENT:
                self._states[response.n] = _UNKNOWN
                self._unknown[response.n] = response

    def end(self, request: Request, status: int | None) -> None:
        """Say how the request was answered: a status, or None for no answer."""
        self.http["none" if status is None else str(status)] += 1
        if status != 200:
            return
        for response in request.responses:
            if self._states[response.n] != _ACKNOWLEDGED:
                self._states[response.n] = _ACKNOWLEDGED
                self._unknown.pop(response.n, None)
                self._unpriced.append(response)

    @property
    def acknowledged(self) -> dict[Key, Sums]:
        """What rows must hold at least."""
        for response in self._unpriced:
            self._add(response)
        self._unpriced.clear()
        return self._rows

    @property
    def unknown(self) -> dict[Key, list[Response]]:
        """Responses that rows may hold besides, once each."""
        rows: dict[Key, list[Response]] = {}
        for response in self._unknown.values():
            rows.setdefault(key_of(response), []).append(response)
        return rows

    @property
    def session_ids(self) -> set[str]:
        """Sessions of which something was sent."""
        return {key.session_id for key in self.acknowledged} | {
            response.session.session_id for response in self._unknown.values()
        }

    def _add(self, response: Response) -> None:
        key = key_of(response)
        self._rows[key] = add(self._rows.get(key, _NOTHING), sums_of(response))

    def document(self, *, rows: bool = True) -> dict[str, Any]:
        """Return the truth file's content; without `rows` it costs next to nothing."""
        config = self.config
        document = {
            "format": FORMAT,
            "final": self.final,
            "seed": config.seed,
            "start": config.start_iso,
            "agents": config.agents,
            "requests": config.requests,
            "config": config.document(),
            "sent": {**vars(self.sent), "bodies": dict(self.sent.bodies)},
            "http": dict(sorted(self.http.items())),
            "states": base64.b64encode(zlib.compress(self._states, 1)).decode(),
        }
        if not rows:
            return document
        unknown = self.unknown
        sums = {key: total(map(sums_of, group)) for key, group in unknown.items()}
        return document | {
            "acknowledged": {
                "totals": totals(self.acknowledged.values()),
                "rows": [row_of(key, self._rows[key]) for key in sorted(self._rows, key=order)],
            },
            "unknown": {
                "totals": totals(sums.values()),
                "rows": [row_of(key, sums[key]) for key in sorted(sums, key=order)],
            },
        }

    def write(self, path: Path, *, rows: bool = True) -> None:
        """Write the truth file by rename, so that a reader never sees half of it.

        Raises:
            OSError: the file cannot be written.

        """
        data = orjson.dumps(self.document(rows=rows), option=orjson.OPT_INDENT_2)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_bytes(data)
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read a truth file by playing its fleet once more.

        Raises:
            UsageError: this is not a truth file, or it is of another version's.

        """
        try:
            document = orjson.loads(path.read_bytes())
            if document["format"] != FORMAT:
                raise UsageError(
                    f"{path} has format {document['format']}, this version reads {FORMAT}",
                    "write it again with this version's `tallystream simulate --truth`",
                )
            truth = cls(FleetConfig.from_document(document["config"]))
            states = zlib.decompress(base64.b64decode(document["states"]))
            truth.final = document["final"]
            truth.http.update(document["http"])
            truth.sent = Sent(**document["sent"] | {"bodies": Counter(document["sent"]["bodies"])})
        except (OSError, ValueError, KeyError, TypeError, zlib.error) as exc:
            raise UsageError(
                f"{path} is not a valid truth file: {exc!r}", "`tallystream simulate --truth` writes one"
            ) from exc
        for request in Fleet(truth.config):
            for response in request.responses:
                if states[response.n] == _ACKNOWLEDGED and truth._states[response.n] != _ACKNOWLEDGED:
                    truth._states[response.n] = _ACKNOWLEDGED
                    truth._unpriced.append(response)
                elif states[response.n] == _UNKNOWN or (states[response.n] == _UNSENT and not truth.final):
                    truth._states[response.n] = _UNKNOWN
                    truth._unknown[response.n] = response
        return truth


def total(parts: Iterable[Sums]) -> Sums:
    """Add up."""
    result = _NOTHING
    for part in parts:
        result = add(result, part)
    return result


def totals(parts: Iterable[Sums]) -> dict[str, Any]:
    """Add up, as fields of a row."""
    sums = total(parts)
    return _counts_of(sums) | money_of(sums)
