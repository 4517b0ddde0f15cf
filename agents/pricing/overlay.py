"""Private, dated prices from a TOML file, which take precedence over the book. The format is documented in
docs/pricing.md.

Prices are decimal strings: a TOML float would already have been rounded to binary.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tallystream.agents.pricing.compile import PICO_PER_MTOK, context_of
from tallystream.agents.pricing.rates import BEGINNING, Card, Rates
from tallystream.schemas.billing.line_item import undated
from tallystream.schemas.errors import UsageError

RULES = 2
"""Incremented when entries apply to other requests, so that the hash of a book with entries changes with it."""
END = 2**63
"""After any time an event can have, in ns."""
_PRICE = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _price(value: object) -> int:
    """Convert a string of dollars per million tokens to pico-dollars per token."""
    if isinstance(value, (int, float)):
        raise ValueError(f'must be a decimal string: write "{value}", in quotes')  # noqa: TRY004 - pydantic reports it
    if not isinstance(value, str) or not _PRICE.fullmatch(value):
        raise ValueError('must be dollars per million tokens as a decimal string with at most 6 decimals, like "1.25"')
    return int(Decimal(value) * PICO_PER_MTOK)


def _moment(value: object) -> int:
    """Return ns since the epoch of a TOML date (midnight UTC) or a date-time with an offset."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("must have an offset: write 2026-10-01T00:00:00Z, or the date alone")
        at = value
    elif isinstance(value, date):
        at = datetime.combine(value, time(), UTC)
    else:
        raise ValueError("must be a date like 2026-10-01, not in quotes")  # noqa: TRY004 - pydantic reports it
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


Price = Annotated[int, BeforeValidator(_price)]
Moment = Annotated[int, BeforeValidator(_moment)]
Name = Annotated[str, Field(min_length=1, max_length=256, strict=True)]


class _Rates(BaseModel):
    """Dollars per million tokens; a kind that is left out costs the same as the kind it is a part of."""

    model_config = ConfigDict(extra="forbid")

    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write_5m: Price | None = None
    cache_write_1h: Price | None = None

    def rates(self) -> Rates:
        write = self.input if self.cache_write_5m is None else self.cache_write_5m
        return Rates(
            self.input,
            self.input if self.cache_read is None else self.cache_read,
            write,
            write if self.cache_write_1h is None else self.cache_write_1h,
            self.output,
        )


class _Above(_Rates):
    """Rates of requests with more than the given number of input tokens, including cached ones."""

    input_tokens: Annotated[int, Field(ge=1, strict=True)]


class _Entry(_Rates):
    provider: Name
    model: Name
    tier: Name | None = None
    speed: Name | None = None
    from_: Moment = Field(default=BEGINNING, alias="from")
    until: Moment = END
    above: list[_Above] = []

    @model_validator(mode="after")
    def _ordered(self) -> _Entry:
        if self.from_ >= self.until:
            raise ValueError("`until` must be later than `from`: from `until` on, the price no longer applies")
        starts = [step.input_tokens for step in self.above]
        if starts != sorted(set(starts)):
            raise ValueError("`above` must go up: each `input_tokens` larger than the one before")
        return self

    def key(self) -> tuple[str, str, str]:
        return overlay_key(self.provider, self.model, self.tier, self.speed)

    def card(self) -> Card:
        return Card(
            tuple(step.input_tokens for step in self.above), tuple(step.rates() for step in (self, *self.above))
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    price: list[_Entry] = []


def overlay_key(provider: str, model: str, tier: str | None, speed: str | None) -> tuple[str, str, str]:
    """Return the key that an entry must share with a request: names of the standard tier are equal, and case is
    ignored.
    """
    return provider, model.lower(), repr(sorted(context_of(tier, speed).items()))


@dataclass(frozen=True)
class Overlay:
    """Periods of private prices by `overlay_key`; each `(from, until, card)`, disjoint, in ns."""

    entries: dict[tuple[str, str, str], list[tuple[int, int, Card]]] = field(default_factory=dict)

    def periods(
        self, provider: str, model: str, tier: str | None, speed: str | None = None
    ) -> list[tuple[int, int, Card]]:
        """Return the periods that have a private price for this kind of request.

        Entries of the model's own name come first, then those of its name without the date of its snapshot: bills and
        `prices check` name models without it.
        """
        if not self.entries:
            return []
        found = self.entries.get(overlay_key(provider, model, tier, speed))
        return found or self.entries.get(overlay_key(provider, undated(model), tier, speed), [])

    def canonical(self) -> str:
        """Return a canonical text of the prices, independent of the file's formatting."""
        return repr((RULES, sorted(self.entries.items())) if self.entries else [])


def read_overlay(path: Path) -> Overlay:
    """Read a file of private prices.

    Raises:
        UsageError: the file cannot be read or something in it is wrong; the message names the entry and what to write
            instead.

    """
    hint = "the format, with an example, is in docs/pricing.md"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be read: {exc.strerror or exc}", "TALLYSTREAM_PRICES must name a file"
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} is not TOML: {exc}", hint) from exc
    try:
        parsed = _File.model_validate(document)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{path}: {_place(first['loc'], document)}: {_wrong(first)}", hint) from exc
    entries: dict[tuple[str, str, str], list[tuple[int, int, Card]]] = {}
    seen: dict[tuple[str, str, str], list[tuple[int, _Entry]]] = {}
    for number, entry in enumerate(parsed.price, 1):
        for other, before in seen.setdefault(entry.key(), []):
            if entry.from_ < before.until and before.from_ < entry.until:
                raise UsageError(
                    f"{path}: entries {other} and {number} ({entry.provider}/{entry.model}) apply at the same time",
                    "end the earlier one with `until` where the later one has its `from`",
                )
        seen[entry.key()].append((number, entry))
        entries.setdefault(entry.key(), []).append((entry.from_, entry.until, entry.card()))
    return Overlay({key: sorted(periods, key=lambda period: period[0]) for key, periods in entries.items()})


def _place(loc: tuple[int | str, ...], document: dict[str, Any]) -> str:
    """Describe the entry by its number and its model."""
    if loc[:1] != ("price",) or len(loc) < 2 or not isinstance(loc[1], int):
        return f"`{'.'.join(map(str, loc)) or 'file'}`"
    raw = document["price"][loc[1]]
    name = f" ({raw.get('provider', '?')}/{raw.get('model', '?')})" if isinstance(raw, dict) else ""
    fields = ".".join(str(part) for part in loc[2:])
    return f"entry {loc[1] + 1}{name}" + (f", `{fields}`" if fields else "")


def _wrong(error: Any) -> str:
    messages = {"extra_forbidden": "is not a field we know", "missing": "is missing"}
    return messages.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
