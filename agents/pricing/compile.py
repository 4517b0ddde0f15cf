"""Compiles a model of genai-prices to a Schedule of integer rates.

Prices there are Decimal dollars per million tokens, conditional on dates and times of day, with variants by request
context (service tier, speed). The conditions are read only to learn at which moments something may change; what
applies at a moment is asked of genai-prices itself (`ModelInfo.get_prices`), so its rules are not written twice.
Of its arithmetic two rules are (`genai_prices.types.calc_unit_price`, `genai_prices.decompose`): a context tier
applies to the whole request when all its input tokens are *more* than the tier's start, and a kind of token without a
price of its own is priced as the kind it is a part of. The tests compare both with `calc_price` over the whole book.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from tallystream.agents.pricing.rates import BEGINNING, DAY_NS, Card, DayPrices, Rates, Schedule, Segment
from tallystream.schemas.errors import PermanentError

STANDARD_TIERS = frozenset({"", "default", "standard"})
"""Names of the standard tier: OpenAI uses `default`, Anthropic `standard`. `auto` is not among them, because a request
asks for it without determining the tier that serves it."""
STANDARD_SPEEDS = frozenset({"", "standard", "normal"})
"""Names of the standard speed: Anthropic's API says `standard`, Claude Code's telemetry `normal`."""
PICO_PER_MTOK = 10**6
"""One dollar per million tokens is a million pico-dollars per token."""
_EPOCH = date(1970, 1, 1)


class InexactPriceError(PermanentError):
    """A price is not a whole number of pico-dollars, so integers cannot hold it exactly."""

    code = "inexact_price"


def context_of(tier: str | None, speed: str | None) -> dict[str, str]:
    """Return the request context by which genai-prices selects variants, without values that mean standard."""
    context = {}
    if tier is not None and tier not in STANDARD_TIERS:
        context["service_tier"] = tier
    if speed is not None and speed not in STANDARD_SPEEDS:
        context["speed"] = speed
    return context


def compile_model(model: ModelInfo, context: Mapping[str, str], *, variants: bool = True) -> Schedule:
    """Return the model's prices for a request context.

    A context without an exactly matching variant is not priced, because genai-prices would silently use the standard
    one. `variants=False` is a model offered by another provider than its own, whose variants do not apply there.

    Raises:
        InexactPriceError: a price cannot be held exactly.

    """
    conditional = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    matching = [v for v in model.price_variants or () if variants and v.when == context]
    constraints = [*(price.constraint for price in conditional), *(variant.constraint for variant in matching)]
    dates = sorted({c.start_date for c in constraints if isinstance(c, StartDateConstraint)})
    clocks = sorted({t for c in constraints if isinstance(c, TimeOfDateConstraint) for t in _boundaries(c)})
    first = (dates[0] if dates else _EPOCH) - timedelta(days=1)
    return Schedule(
        (BEGINNING, *((start - _EPOCH).days * DAY_NS for start in dates)),
        tuple(_segment(model, context, matching, day, clocks) for day in (first, *dates)),
    )


def _boundaries(constraint: TimeOfDateConstraint) -> tuple[timedelta, timedelta]:
    """Return both ends as time since midnight UTC; times without a zone are UTC."""

    def since_midnight(value: time) -> timedelta:
        at = datetime.combine(_EPOCH, value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
        return timedelta(hours=at.hour, minutes=at.minute, seconds=at.second, microseconds=at.microsecond)

    return since_midnight(constraint.start_time), since_midnight(constraint.end_time)


def _segment(
    model: ModelInfo, context: Mapping[str, str], matching: list[PriceVariant], day: date, clocks: list[timedelta]
) -> Segment:
    midnight = datetime.combine(day, time(), UTC)
    if not clocks:
        return _card(model, context, matching, midnight)
    starts = sorted({timedelta(), *clocks})
    return DayPrices(
        tuple(start // timedelta(microseconds=1) * 1000 for start in starts),
        tuple(_card(model, context, matching, midnight + start) for start in starts),
    )


def _card(model: ModelInfo, context: Mapping[str, str], matching: list[PriceVariant], at: datetime) -> Card | None:
    if context and not any(v.constraint is None or v.constraint.active(at) for v in matching):
        return None
    return card_of(model.get_prices(at, context or None))


def card_of(prices: ModelPrice) -> Card | None:
    """Return the card of one set of prices; None without prices for text tokens.

    Raises:
        InexactPriceError: a price cannot be held exactly.

    """
    plain, read = prices.input_mtok, prices.cache_read_mtok
    write = prices.cache_write_mtok
    kinds = (
        plain,
        plain if read is None else read,
        _first(prices.cache_write_5m_mtok, write, plain),
        _first(prices.cache_write_1h_mtok, write, plain),
        prices.output_mtok,
    )
    if plain is None and prices.output_mtok is None:
        return None
    starts = sorted({tier.start for kind in kinds if isinstance(kind, TieredPrices) for tier in kind.tiers})
    # A size just above a start represents all sizes up to the next one.
    sizes = (0, *(start + 1 for start in starts))
    fee = prices.requests_kcount
    return Card(
        tuple(starts),
        tuple(Rates(*(_rate(kind, size) for kind in kinds)) for size in sizes),
        0 if fee is None else _whole(_at(fee, 0) * 10**9),
    )


def _first(*prices: Decimal | TieredPrices | None) -> Decimal | TieredPrices | None:
    return next((price for price in prices if price is not None), None)


def _at(price: Decimal | TieredPrices, size: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if size > tier.start), price.base)


def _rate(price: Decimal | TieredPrices | None, size: int) -> int | None:
    return None if price is None else _whole(_at(price, size) * PICO_PER_MTOK)


def _whole(pico: Decimal) -> int:
    if pico != pico.to_integral_value():
        raise InexactPriceError(f"{pico} pico-dollars is not a whole number")
    return int(pico)
