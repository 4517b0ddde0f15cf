"""The price book: the pinned package genai-prices, never updated over the network."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version

from genai_prices.types import ModelInfo, Provider

from tallystream.agents.pricing.compile import InexactPriceError, compile_model, context_of
from tallystream.agents.pricing.overlay import Overlay
from tallystream.agents.pricing.rates import NO_PRICE, Card, DayPrices, PricedCounts, Schedule, overlaid

RULES = 2
"""Incremented when our code interprets the book's data differently, so that the hash changes with it."""
MAX_NAME = 256
"""Maximum length of a model name, tier or speed; longer ones are not priced."""

_NO_LIMIT = 2**63
Key = tuple[str, str, str | None, str | None]


def _pinned() -> Sequence[Provider]:
    # Not `data_snapshot.get_snapshot()`: an UpdatePrices anywhere in the process replaces that one.
    from genai_prices.data import providers

    return providers


class Book:
    """Prices requests, exactly, in integer pico-dollars.

    `overlay` takes precedence over the book. `max_names` bounds what is remembered about (provider, model, tier,
    speed), known or not: model names come from clients, and the oldest half goes when a client makes up too many.
    """

    def __init__(
        self, overlay: Overlay | None = None, *, providers: Sequence[Provider] | None = None, max_names: int = 4096
    ) -> None:
        self._providers = list(_pinned() if providers is None else providers)
        self._by_id = {provider.id: provider for provider in self._providers}
        self._overlay = overlay or Overlay()
        self._max_names = max_names
        self._schedules: dict[Key, Schedule] = {}
        self._hash = self._digest()

    @property
    def hash(self) -> str:
        """Return `<version of genai-prices>-<8 hex digits>`: changes with the data, the overlay and our rules."""
        return self._hash

    def _digest(self) -> str:
        digest = sha256(f"{RULES}\n{self._overlay.canonical()}\n".encode())
        for provider in self._providers:
            digest.update(repr((provider.id, provider.fallback_model_providers, provider.models)).encode())
        return f"{version('genai-prices')}-{digest.hexdigest()[:8]}"

    def price(
        self,
        provider: str,
        model: str,
        tier: str | None,
        occurred_at_ns: int,
        input_uncached: int,
        cache_read: int,
        cache_write_5m: int,
        cache_write_1h: int,
        output: int,
        *,
        speed: str | None = None,
    ) -> int | None:
        """Return the cost of one request in pico-dollars, or None when the book cannot price it.

        Counts are disjoint tokens of one request: context tiers depend on the request's size, so never add up requests
        first. `occurred_at_ns` is event time in ns since the epoch. Reasoning is inside `output`.
        """
        try:
            schedule = self._schedules[provider, model, tier, speed]
        except KeyError:
            schedule = self._find(provider, model, tier, speed)
        segments = schedule.segments
        card = segments[0] if len(segments) == 1 else schedule.segment(occurred_at_ns)
        if isinstance(card, DayPrices):
            card = card.at(occurred_at_ns)
        if card is None:
            return None
        if card.whole is None:
            return card.price(PricedCounts(input_uncached, cache_read, cache_write_5m, cache_write_1h, output))
        starts = card.starts
        size = input_uncached + cache_read + cache_write_5m + cache_write_1h
        plain, read, write_5m, write_1h, out = card.whole[bisect_left(starts, size) if starts else 0]
        return (
            input_uncached * plain
            + cache_read * read
            + cache_write_5m * write_5m
            + cache_write_1h * write_1h
            + output * out
            + card.fee
        )

    def flat(self, provider: str, model: str, first_ns: int, last_ns: int) -> tuple[Sequence[int], int, int] | None:
        """Return what one price holds for, of requests without tier and speed between two times, both included.

        That is the pico-dollars a token of input_uncached, cache_read, cache_write_5m, cache_write_1h and output, those
        a request, and the tokens of input (all but output) up to which both hold. None when times or kinds of tokens
        differ in how they are priced, or have no price.
        """
        try:
            schedule = self._schedules[provider, model, None, None]
        except KeyError:
            schedule = self._find(provider, model, None, None)
        card = schedule.segments[0]
        if len(schedule.segments) > 1:
            card = schedule.segment(first_ns)
            if card is not schedule.segment(last_ns):
                return None
        if not isinstance(card, Card) or card.whole is None:
            return None
        return card.whole[0], card.fee, card.starts[0] if card.starts else _NO_LIMIT

    def card(self, provider: str, model: str, tier: str | None, at_ns: int, *, speed: str | None = None) -> Card | None:
        """Return the prices of a model at a time in ns since the epoch, or None when the book does not have them."""
        return self._find(provider, model, tier, speed).card(at_ns)

    def rates(
        self, provider: str, model: str, tier: str | None, occurred_at_ns: int, *, speed: str | None = None
    ) -> list[tuple[int, tuple[int, int, int, int, int], int]] | None:
        """Return the rates that `price` uses, or None when the book cannot price it or a price is not a whole number.

        By size of a request: (tokens of input above which it holds, pico-dollars a token of input_uncached, cache_read,
        cache_write_5m, cache_write_1h and output, pico-dollars a request).
        """
        schedule = self._find(provider, model, tier, speed)
        segments = schedule.segments
        card = segments[0] if len(segments) == 1 else schedule.segment(occurred_at_ns)
        if isinstance(card, DayPrices):
            card = card.at(occurred_at_ns)
        if card is None or card.whole is None:
            return None
        starts = (0, *card.starts)
        return [(start, rates, card.fee) for start, rates in zip(starts, card.whole, strict=True)]

    def why_unpriced(self, provider: str, model: str, tier: str | None, speed: str | None = None) -> str:
        """Return, for people, why a request of this kind was not priced."""
        schedule = self._find(provider, model, tier, speed)
        if schedule.empty and self._model(provider, model) is None:
            return "the book does not know this model"
        context = ", ".join(f"{name} {value!r}" for name, value in context_of(tier, speed).items())
        if schedule.empty:
            return f"the book has no price for {context or 'text tokens of this model'}"
        return f"the book has no price{f' for {context}' if context else ''} at that time or for that kind of token"

    def _model(self, provider: str, model: str) -> ModelInfo | None:
        owner = self._by_id.get(provider)
        if owner is None or len(model) > MAX_NAME:
            return None
        # Provider.find_model keeps no cache; DataSnapshot's lookups do, without a bound.
        return owner.find_model(model, all_providers=self._providers)

    def _find(self, provider: str, model: str, tier: str | None, speed: str | None) -> Schedule:
        if max(len(provider), len(model), len(tier or ""), len(speed or "")) > MAX_NAME:
            return NO_PRICE
        schedule = self._compile(provider, model, tier, speed)
        periods = self._overlay.periods(provider, model, tier, speed)
        if periods:
            schedule = overlaid(schedule, periods)
        if len(self._schedules) >= self._max_names:
            for key in list(self._schedules)[: (self._max_names + 1) // 2]:
                del self._schedules[key]
        self._schedules[provider, model, tier, speed] = schedule
        return schedule

    def _compile(self, provider: str, model: str, tier: str | None, speed: str | None) -> Schedule:
        found = self._model(provider, model)
        if found is None:
            return NO_PRICE
        own = any(found is one for one in self._by_id[provider].models)
        try:
            return compile_model(found, context_of(tier, speed), variants=own)
        except InexactPriceError:
            return NO_PRICE
