"""The split of a difference: worked examples, and that the parts always add up."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.agents.reconciliation.split import (
    CAUSES,
    BilledUsage,
    DayCell,
    SeenUsage,
    Split,
    apportion,
    name_discount,
    net_kinds,
    place,
    split,
)

MILLION = 10**6
TIERS = ["standard", "priority", "flex", "batch"]


def price(dollars: str) -> Fraction:
    """Convert dollars per million tokens to dollars per token."""
    return Fraction(dollars) / MILLION


def cents(text: str) -> Fraction:
    return Fraction(text) / 100


def said(splits: Mapping[str, Split]) -> dict[str, dict[str, Decimal]]:
    return {name: {cause: exact(value) for cause, value in one.causes.items() if value} for name, one in splits.items()}


def exact(value: Fraction) -> Decimal:
    digits = Decimal(value.numerator) / Decimal(value.denominator)
    assert Fraction(digits) == value
    return digits


def cell(billed: dict[str, tuple[str, int]], seen: dict[str | None, int], book: dict[str, str]) -> DayCell:
    prices = {tier: price(text) for tier, text in book.items()}
    return DayCell(
        {tier: BilledUsage(Fraction(amount), quantity) for tier, (amount, quantity) in billed.items()},
        {tier: SeenUsage(tokens, prices.get(tier or "standard")) for tier, tokens in seen.items()},
        prices,
    )


def contract_day() -> dict[str, Split]:
    """Return a day of one model with a contract discount of 10%, for which some tiers are not reported."""
    return {
        "input": split(
            cell(
                {"standard": ("45.00", 10 * MILLION), "priority": ("9.00", MILLION)},
                {"standard": 8 * MILLION, None: 2 * MILLION},
                {"standard": "5", "priority": "10"},
            )
        ),
        "cached": split(
            cell(
                {"standard": ("27.00", 60 * MILLION), "priority": ("5.40", 6 * MILLION)},
                {"standard": 50 * MILLION, None: 12 * MILLION},
                {"standard": "0.5", "priority": "1"},
            )
        ),
        "output": split(
            cell(
                {"standard": ("32.40", 1_200_000), "priority": ("5.40", 100_000)},
                {"standard": MILLION, None: 200_000},
                {"standard": "30", "priority": "60"},
            )
        ),
        "web search": split(cell({"standard": ("1.25", 0)}, {}, {})),
    }


def test_difference_of_7_percent_is_split_into_three_causes() -> None:
    splits = contract_day()
    assert splits["input"].placed == {"standard": 1_333_333, "priority": 666_667}
    assert said(splits) == {
        "input": {
            "unseen": Decimal("5.9999985"), "book_price": Decimal("-5.3333335"), "tier_unknown": Decimal("3.333335"),
        },
        "cached": {"unseen": Decimal("2.475"), "book_price": Decimal("-3.325"), "tier_unknown": Decimal("2.25")},
        "output": {
            "unseen": Decimal("3.599991"), "book_price": Decimal("-3.800001"), "tier_unknown": Decimal("2.00001"),
        },
        "web search": {"no_token_line": Decimal("1.25")},
    }  # fmt: skip
    assert sum(one.bill for one in splits.values()) == Fraction("125.45")
    assert sum(one.estimate for one in splits.values()) == 117


def test_single_ratio_over_all_lines_is_a_discount() -> None:
    splits = contract_day()
    assert name_discount(list(splits.values())) == Fraction("0.9")
    assert sum(one.causes["discount"] for one in splits.values()) == Fraction("-12.4583345")
    assert not any(one.causes["book_price"] for one in splits.values())


def test_two_ratios_are_not_a_discount() -> None:
    dearer = cell({"standard": ("3", MILLION)}, {"standard": MILLION}, {"standard": "2.5"})
    splits = [*contract_day().values(), split(dearer)]
    assert name_discount(splits) is None
    assert sum(one.causes["book_price"] for one in splits) == Fraction("-12.4583345") + Fraction("0.5")


def listed_day() -> dict[str, Split]:
    """Return a day with list amounts, a discount of 5%, an unpriced model, and 1 h writes recorded as 5 min writes."""

    def one(amount: str, listed: str, quantity: int, seen: int, dollars: str) -> Split:
        return split(
            DayCell(
                {"standard": BilledUsage(cents(amount), quantity, cents(listed))},
                {"standard": SeenUsage(seen, price(dollars))} if seen else {},
                {"standard": price(dollars)},
            )
        )

    return {
        "input_uncached": one("1900.000000", "2000.000000", 4 * MILLION, 3_999_000, "5"),
        "cache_write_5m": one("2375.000000", "2500.000000", 4 * MILLION, 6 * MILLION, "6.25"),
        "cache_write_1h": one("1900.000000", "2000.000000", 2 * MILLION, 0, "10"),
        "output": one("950.000000", "1000.000000", 400_000, 400_000, "25"),
        "unpriced": split(
            DayCell({"standard": BilledUsage(cents("600.000000"), 200_000)}, {"standard": SeenUsage(190_000, None)})
        ),
        "haiku": split(
            DayCell(
                {"standard": BilledUsage(cents("0.123457"), 12_345_678, ulp=cents("0.000001"))},
                {"standard": SeenUsage(12_345_678, Fraction(1, 10**10))},
            )
        ),
        "web search": split(DayCell({"standard": BilledUsage(cents("70.000000"))})),
    }


def test_list_amounts_separate_discount_from_book_price() -> None:
    splits = listed_day()
    assert said(splits) == {
        "input_uncached": {"unseen": Decimal("0.00475"), "discount": Decimal("-0.99975")},
        "cache_write_5m": {"overseen": Decimal("-11.875"), "discount": Decimal("-1.875")},
        "cache_write_1h": {"unseen": Decimal(19)},
        "output": {"discount": Decimal("-0.5")},
        "unpriced": {"unseen": Decimal("0.3"), "unpriced": Decimal("5.7")},
        "haiku": {"rounding": Decimal("0.0000000022")},
        "web search": {"no_token_line": Decimal("0.7")},
    }
    assert sum(one.difference for one in splits.values()) == Fraction("10.4550000022")


def test_moved_token_kinds_are_one_cause() -> None:
    splits = listed_day()
    net_kinds({kind: splits[kind] for kind in ("input_uncached", "cache_write_5m", "cache_write_1h", "output")})
    totals = {cause: sum(one.causes[cause] for one in splits.values()) for cause in CAUSES}
    assert totals["kind_moved"] == Fraction("7.125")
    assert totals["unseen"] == Fraction("0.30475")
    assert totals["overseen"] == 0
    assert sum(totals.values()) == Fraction("10.4550000022")


def test_timing_free_tokens_and_lag_are_separated() -> None:
    mini = price("4.5")

    def day(amount: str, quantity: int, seen: int, moved: int, usage: int) -> Split:
        line = BilledUsage(Fraction(amount), quantity, usage=usage)
        return split(DayCell({"standard": line}, {"standard": SeenUsage(seen, mini)}, moved=moved))

    luna = split(cell({"standard": ("0", 500_000)}, {"standard": 480_000}, {"standard": "1.2"}))
    first = day("4.50", MILLION, 940_000, 40_000, MILLION)
    second = day("3.60", 800_000, 860_000, -40_000, 830_000)
    assert said({"first": first, "luna": luna, "second": second}) == {
        "first": {"unseen": Decimal("0.09"), "timing": Decimal("0.18")},
        "luna": {"free": Decimal("-0.576")},
        "second": {"unseen": Decimal("0.045"), "timing": Decimal("-0.18"), "lag": Decimal("-0.135")},
    }


def random_cell(random: Random) -> DayCell:
    tiers = random.sample(TIERS, random.randint(1, 4))

    def rate() -> Fraction:
        return Fraction(random.randint(1, 10**6), 10**10)

    def line() -> BilledUsage:
        amount = (
            Fraction(random.randint(0, 10**9), 10 ** random.randint(3, 12)) if random.random() < 0.9 else Fraction(0)
        )
        return BilledUsage(
            amount,
            random.choice([0, 0, random.randint(1, 10**7), random.randint(1, 50)]),
            rate() * 1000 if random.random() < 0.4 else None,
            random.randint(0, 10**7) if random.random() < 0.4 else None,
            random.choice([Fraction(0), Fraction(1, 100)]),
        )

    seen: dict[str | None, SeenUsage] = {}
    for tier in [*tiers, None]:
        if random.random() < 0.7:
            seen[tier] = SeenUsage(random.randint(0, 10**7), rate() if random.random() < 0.8 else None)
    return DayCell(
        {tier: line() for tier in tiers if random.random() < 0.85},
        seen,
        {tier: rate() if random.random() < 0.8 else None for tier in TIERS if random.random() < 0.8},
        random.choice([0, 0, random.randint(-(10**5), 10**5)]),
    )


@st.composite
def any_cell(draw: st.DrawFn) -> DayCell:
    return random_cell(draw(st.randoms(use_true_random=False)))


@given(any_cell())
@examples(500)
def test_causes_add_up_to_the_difference(drawn: DayCell) -> None:
    out = split(drawn)
    assert sum(out.causes.values()) == out.bill - out.estimate
    assert sum(out.placed.values()) == (drawn.seen[None].tokens if None in drawn.seen else 0)
    assert out.causes["unseen"] >= 0


@given(st.lists(any_cell(), min_size=2, max_size=5))
def test_netting_and_discounts_preserve_the_sums(drawn: list[DayCell]) -> None:
    kinds = ["cache_write_5m", "cache_write_1h", "input_uncached", "cache_read", "output"]
    splits = {kind: split(one) for kind, one in zip(kinds, drawn, strict=False)}
    net_kinds(splits)
    name_discount(list(splits.values()))
    for one in splits.values():
        assert sum(one.causes.values()) == one.difference
        assert one.causes["unseen"] >= 0


@given(any_cell())
def test_bill_equal_to_the_estimate_has_no_causes(drawn: DayCell) -> None:
    """If telemetry equals the bill at the charged price, there is no difference to explain."""
    billed = {tier: BilledUsage(line.amount, line.quantity) for tier, line in drawn.billed.items() if line.quantity}
    seen: dict[str | None, SeenUsage] = {
        tier: SeenUsage(line.quantity, line.amount / line.quantity) for tier, line in billed.items()
    }
    out = split(DayCell(billed, seen))
    assert out.difference == 0
    assert not any(out.causes.values())


@given(any_cell(), st.randoms(use_true_random=False))
def test_order_of_lines_does_not_matter(drawn: DayCell, random: Random) -> None:
    billed, seen = list(drawn.billed.items()), list(drawn.seen.items())
    random.shuffle(billed)
    random.shuffle(seen)
    assert split(DayCell(dict(billed), dict(seen), drawn.book, drawn.moved)) == split(drawn)


@given(st.integers(0, 10**9), st.dictionaries(st.sampled_from(TIERS), st.integers(0, 10**9)))
def test_tokens_are_distributed_as_whole_numbers_without_loss(unsaid: int, room: dict[str, int]) -> None:
    placed = place(unsaid, room)
    assert sum(placed.values()) == unsaid
    for tier, tokens in placed.items():
        assert 0 <= tokens <= room.get(tier, 0) or (tier == "standard" and unsaid > sum(room.values()))


@given(st.integers(-(10**9), 10**9), st.dictionaries(st.sampled_from(TIERS), st.integers(1, 10**9), min_size=1))
def test_distributed_parts_differ_from_their_share_by_less_than_one(total: int, weights: dict[str, int]) -> None:
    parts = apportion(total, weights)
    assert sum(parts.values()) == total
    whole = sum(weights.values())
    assert all(abs(parts[name] - Fraction(total * weight, whole)) < 1 for name, weight in weights.items())
