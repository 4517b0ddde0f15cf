"""The price book compared with genai-prices: every model, every tier, thousands of random requests."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.agents.pricing import Book
from tallystream.agents.pricing.compile import STANDARD_TIERS
from tallystream.agents.pricing.rates import DAY_NS
from tallystream.schemas.money import PICO

NS = 10**9
Counts = tuple[int, int, int, int, int]
DAY_1 = int(datetime(2023, 1, 1, tzinfo=UTC).timestamp()) * NS
LAST_DAY = int(datetime(2028, 1, 1, tzinfo=UTC).timestamp()) * NS
BOOK = Book()
OURS = {p.id: p for p in providers if p.id in ("openai", "anthropic", "google")}
MODELS = [(p.id, m) for p in OURS.values() for m in p.models]


def reference(
    provider: str, model: str, tier: str | None, at_ns: int, counts: Counts, speed: str | None = None
) -> Decimal:
    """Price by genai-prices in Decimal."""
    plain, read, write_5m, write_1h, output = counts
    usage = Usage(
        input_tokens=plain + read + write_5m + write_1h,
        cache_read_tokens=read,
        cache_write_tokens=write_5m + write_1h,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        output_tokens=output,
    )
    context = {k: v for k, v in (("service_tier", tier), ("speed", speed)) if v}
    at = datetime.fromtimestamp(at_ns // NS, UTC).replace(microsecond=at_ns % NS // 1000)
    return calc_price(
        usage, model, provider_id=provider, genai_request_timestamp=at, price_context=context or None
    ).total_price


def tiers_of(model: ModelInfo, at_ns: int, name: str = "service_tier") -> set[str]:
    """Return the tiers that genai-prices has for a model at a time, from its data."""
    at = datetime.fromtimestamp(at_ns // NS, UTC)
    return {
        v.when[name]
        for v in model.price_variants or ()
        if set(v.when) == {name} and (v.constraint is None or v.constraint.active(at))
    }


def name_of(model: ModelInfo, provider: str) -> str | None:
    """Return a reference that finds exactly this model, if its id does."""
    found = OURS[provider].find_model(model.id, all_providers=providers)
    return model.id if found is model else None


def random_counts(rng: random.Random) -> Counts:
    edge = rng.choice((0, 1, 100_000, 128_000, 200_000, 272_000))
    near = max(0, edge + rng.randint(-1, 1))
    size = rng.choice((10, 3_000, 400_000))
    plain, read, write_5m, write_1h, output = (rng.randrange(size) if rng.random() < 0.7 else 0 for _ in range(5))
    if rng.random() < 0.5:  # put the sum of the inputs at the edge of a context tier
        plain = max(0, near - read - write_5m - write_1h)
    return plain, read, write_5m, write_1h, output


def test_prices_equal_genai_prices_for_every_model_and_tier() -> None:
    rng = random.Random(20261121)
    compared = priced = 0
    for _ in range(45):
        for provider, model in MODELS:
            name = name_of(model, provider)
            if name is None:
                continue
            at = rng.randrange(DAY_1, LAST_DAY) if rng.random() < 0.7 else rng.randrange(DAY_1, LAST_DAY, DAY_NS)
            tier = rng.choice((None, None, "", "default", "standard", "flex", "priority", "fast"))
            counts = random_counts(rng)
            ours = BOOK.price(provider, name, tier, at, *counts)
            compared += 1
            if tier and tier not in STANDARD_TIERS and tier not in tiers_of(model, at):
                assert ours is None, f"{provider}/{name} has no price for {tier}, and must not take another"
                continue
            if ours is None:  # only if the book has no price for one of the request's kinds of token
                prices = model.get_prices(datetime.fromtimestamp(at // NS, UTC))
                assert (prices.input_mtok is None and any(counts[:4])) or (
                    prices.output_mtok is None and (counts[4] or prices.input_mtok is None)
                ), f"{provider}/{name} {tier}"
                continue
            priced += 1
            expected = reference(provider, name, tier, at, counts)
            assert Decimal(ours) / PICO == expected, f"{provider}/{name} {tier} at {at} {counts}"
    assert compared > 8_000
    assert priced > 4_000


def test_prices_equal_genai_prices_for_speeds() -> None:
    rng = random.Random(5)
    fast = [(p, m) for p, m in MODELS if name_of(m, p) and tiers_of(m, LAST_DAY, "speed")]
    assert fast, "the book has models with a fast mode"
    for provider, model in fast * 20:
        counts = random_counts(rng)
        for speed in tiers_of(model, LAST_DAY, "speed"):
            ours = BOOK.price(provider, model.id, None, LAST_DAY, *counts, speed=speed)
            assert ours is not None
            assert Decimal(ours) / PICO == reference(provider, model.id, None, LAST_DAY, counts, speed)
        assert BOOK.price(provider, model.id, None, LAST_DAY, *counts, speed="warp") is None


@pytest.mark.parametrize("provider", [p.id for p in providers])
def test_every_price_is_a_whole_number_of_pico_dollars(provider: str) -> None:
    book = Book()
    for model in next(p for p in providers if p.id == provider).models:
        if provider in OURS:
            from tallystream.agents.pricing.compile import compile_model

            compile_model(model, {})  # InexactPriceError would name it
        book.price(provider, model.id, None, LAST_DAY, 1, 1, 1, 1, 1)


AT = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * NS
ONE = (1_000, 5_000, 0, 0, 100)


def test_context_tier_depends_on_the_request() -> None:
    small = BOOK.price("openai", "gpt-5.4", None, AT, 100_000, 0, 0, 0, 1000)
    assert small == 265_000_000_000
    assert BOOK.price("openai", "gpt-5.4", None, AT, 300_000, 0, 0, 0, 3000) == 1_567_500_000_000
    assert BOOK.price("openai", "gpt-5.4", None, AT, 272_000, 0, 0, 0, 0) == 272_000 * 2_500_000
    assert BOOK.price("openai", "gpt-5.4", None, AT, 0, 272_001, 0, 0, 0) == 272_001 * 500_000


def test_auto_is_not_a_name_of_the_standard_tier() -> None:
    prices = {BOOK.price("openai", "gpt-5-codex", tier, AT, *ONE) for tier in (None, "", "default", "standard")}
    assert prices == {2_875_000_000}
    assert BOOK.price("openai", "gpt-5-codex", "auto", AT, *ONE) is None
    assert BOOK.price("openai", "gpt-5-codex", "FLEX", AT, *ONE) is None
    flex = BOOK.price("openai", "gpt-5-codex", "flex", AT, *ONE)
    assert flex is not None
    assert flex < 2_875_000_000


def test_normal_speed_of_claude_code_has_the_standard_price() -> None:
    prices = {
        BOOK.price("anthropic", "claude-opus-5-5", None, AT, *ONE, speed=speed)
        for speed in (None, "", "standard", "normal")
    }
    assert prices == {7_000_000_000}
    assert BOOK.price("anthropic", "claude-opus-5-5", None, AT, *ONE, speed="fast") == 14_000_000_000
    assert BOOK.price("anthropic", "claude-haiku-4-5", None, AT, *ONE, speed="normal") == 2_000_000_000
    assert BOOK.price("anthropic", "claude-haiku-4-5", None, AT, *ONE, speed="fast") is None


def test_tier_has_no_price_before_its_date() -> None:
    before = int(datetime(2026, 10, 11, 23, 59, 59, tzinfo=UTC).timestamp()) * NS
    assert BOOK.price("openai", "gpt-5-codex", "flex", before, *ONE) is None
    assert BOOK.price("openai", "gpt-5-codex", "flex", before + NS, *ONE) is not None


def test_dated_prices_change_at_midnight_utc() -> None:
    cut = int(datetime(2025, 6, 10, tzinfo=UTC).timestamp()) * NS
    before, after = (BOOK.price("openai", "o3", None, at, 1000, 0, 0, 0, 0) for at in (cut - 1, cut))
    assert before == 5 * (after or 0)


def test_unknown_models_are_unpriced_with_a_reason() -> None:
    assert BOOK.price("openai", "openai/gpt-5-codex", None, AT, *ONE) is None
    assert BOOK.price("nobody", "gpt-5-codex", None, AT, *ONE) is None
    assert BOOK.price("openai", "m" * 5000, None, AT, *ONE) is None
    assert "does not know" in BOOK.why_unpriced("openai", "wonder-1", None)
    assert "service_tier 'warp'" in BOOK.why_unpriced("openai", "gpt-5-codex", "warp")
    assert "speed 'x'" in BOOK.why_unpriced("anthropic", "claude-opus-4-8", None, "x")
    assert "at that time" in BOOK.why_unpriced("openai", "gpt-5-codex", "flex")
    assert BOOK.price("openai", "codex-mini-latest", None, AT, *ONE) is not None


def test_token_kind_without_a_price_is_unpriced() -> None:
    assert BOOK.price("openai", "text-embedding-3-small", None, AT, 1000, 0, 0, 0, 0) == 20_000_000
    assert BOOK.price("openai", "text-embedding-3-small", None, AT, 1000, 0, 0, 0, 1) is None
    assert BOOK.price("openai", "whisper-1", None, AT, 1, 0, 0, 0, 0) is None


@examples(300)
@given(st.text(max_size=300), st.one_of(st.none(), st.text(max_size=300)), st.integers(0, 2**63 - 1))
def test_missing_name_or_time_does_not_raise(model: str, tier: str | None, at: int) -> None:
    BOOK.price("openai", model, tier, at, 1, 2, 3, 4, 5, speed=tier)
    BOOK.why_unpriced("openai", model, tier)


def test_unknown_model_names_do_not_fill_the_cache() -> None:
    from genai_prices.data_snapshot import get_snapshot

    book = Book(max_names=64)
    snapshot = get_snapshot()
    before = len(snapshot._lookup_cache) + len(snapshot._provider_cache) + len(snapshot._provider_misses)
    for n in range(500):
        book.price("anthropic", f"claude-opus-4-6-{n}", None, AT, *ONE)
        book.price("openai", f"made-up-{n}", f"tier-{n}", AT, *ONE)
    assert len(book._schedules) <= 64
    assert before == len(snapshot._lookup_cache) + len(snapshot._provider_cache) + len(snapshot._provider_misses)
    assert book.price("openai", "gpt-5-codex", None, AT, *ONE) == 2_875_000_000


def one_model(model: ModelInfo) -> Book:
    return Book(providers=[Provider(id="p", name="p", api_pattern="p", models=[model])])


def test_prices_depend_on_the_time_of_day() -> None:
    night = ModelPrice(input_mtok=Decimal("0.5"), output_mtok=Decimal(1))
    day = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2))
    later = ModelPrice(input_mtok=Decimal(3), output_mtok=Decimal(3))
    model = ModelInfo(
        id="m",
        match=ClauseEquals("m"),
        prices=[
            ConditionalPrice(prices=day),
            ConditionalPrice(TimeOfDateConstraint(time(22, 30), time(6)), prices=night),
            ConditionalPrice(StartDateConstraint(date(2027, 1, 1)), prices=later),
        ],
    )
    book = one_model(model)

    def at(*moment: int) -> int | None:
        return book.price("p", "m", None, int(datetime(*moment, tzinfo=UTC).timestamp()) * NS, 1, 0, 0, 0, 0)  # type: ignore[arg-type, misc] # moment is a date and a time

    assert [at(2026, 11, 21, 5, 59), at(2026, 11, 21, 6), at(2026, 11, 21, 22, 29), at(2026, 11, 21, 22, 30)] == [
        500_000,
        1_000_000,
        1_000_000,
        500_000,
    ]
    assert at(2026, 12, 31, 23, 59) == 500_000
    assert at(2027, 1, 1, 0, 0) == 3_000_000


@given(st.integers(DAY_1, LAST_DAY))
def test_time_of_day_agrees_with_genai_prices(at: int) -> None:
    book = Book()
    model = next(m for p in providers if p.id == "deepseek" for m in p.models if m.id == "deepseek-v4-pro")
    moment = datetime.fromtimestamp(at // NS, UTC)
    prices = model.get_prices(moment)
    assert isinstance(prices.input_mtok, Decimal)
    assert book.price("deepseek", model.id, None, at, 1, 0, 0, 0, 0) == prices.input_mtok * 10**6


def test_fractional_picodollar_price_is_unpriced() -> None:
    thin = ModelPrice(input_mtok=Decimal("0.0000001"), output_mtok=Decimal(1))
    book = one_model(ModelInfo(id="m", match=ClauseEquals("m"), prices=thin))
    assert book.price("p", "m", None, AT, 1, 0, 0, 0, 0) is None


def test_fee_per_request_is_included() -> None:
    prices = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), requests_kcount=Decimal(5))
    book = one_model(ModelInfo(id="m", match=ClauseEquals("m"), prices=prices))
    assert book.price("p", "m", None, AT, 1, 0, 0, 0, 0) == 5 * PICO // 1000 + 1_000_000


def test_tier_and_speed_prices_are_not_combined() -> None:
    std = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1))
    half = TieredPrices(base=Decimal("0.5"), tiers=[Tier(start=10, price=Decimal("0.7"))])
    model = ModelInfo(
        id="m",
        match=ClauseEquals("m"),
        prices=std,
        price_variants=[
            PriceVariant(when={"service_tier": "flex"}, prices=ModelPrice(input_mtok=half)),
            PriceVariant(when={"speed": "fast"}, prices=ModelPrice(input_mtok=Decimal(2))),
        ],
    )
    book = one_model(model)
    assert book.price("p", "m", "flex", AT, 10, 0, 0, 0, 0) == 5_000_000
    assert book.price("p", "m", "flex", AT, 11, 0, 0, 0, 0) == 7_700_000
    assert book.price("p", "m", None, AT, 10, 0, 0, 0, 0, speed="fast") == 20_000_000
    assert book.price("p", "m", "flex", AT, 10, 0, 0, 0, 0, speed="fast") is None


def test_hash_identifies_the_book() -> None:
    assert Book().hash == BOOK.hash
    std = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1))
    dear = ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(1))
    hashes = {one_model(ModelInfo(id="m", match=ClauseEquals("m"), prices=p)).hash for p in (std, dear)}
    assert len(hashes) == 2
