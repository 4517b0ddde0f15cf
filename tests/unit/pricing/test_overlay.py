"""Your own prices: what they override and when, and errors that name the place and the remedy."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tallystream.agents.pricing import Book, Overlay, read_overlay
from tallystream.schemas.errors import UsageError

NS = 10**9
ENTRY = """
[[price]]
provider = "openai"
model = "gpt-5-codex"
input = "1"
output = "2"
"""


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


NOW = at("2026-11-21")


def overlay(tmp_path: Path, text: str) -> Overlay:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return read_overlay(path)


def book(tmp_path: Path, text: str) -> Book:
    return Book(overlay(tmp_path, text))


def test_own_price_overrides_the_book_only_for_its_entry(tmp_path: Path) -> None:
    ours = book(tmp_path, ENTRY)
    assert ours.price("openai", "gpt-5-codex", None, NOW, 1, 0, 0, 0, 1) == 3_000_000
    assert ours.price("openai", "GPT-5-Codex", "default", NOW, 1, 0, 0, 0, 1) == 3_000_000
    for tier, model in (("flex", "gpt-5-codex"), (None, "gpt-5")):
        assert ours.price("openai", model, tier, NOW, 1, 0, 0, 0, 1) == Book().price(
            "openai", model, tier, NOW, 1, 0, 0, 0, 1
        )


def test_an_entry_without_a_date_applies_to_dated_snapshots_that_have_none_of_their_own(tmp_path: Path) -> None:
    dated = ENTRY.replace("gpt-5-codex", "gpt-5-codex-2026-02-01").replace('"1"', '"4"')
    ours = book(tmp_path, ENTRY + dated)
    prices = {
        model: ours.price("openai", model, None, NOW, 1, 0, 0, 0, 1)
        for model in ("gpt-5-codex", "gpt-5-codex-2026-02-01", "GPT-5-codex-20260301", "gpt-5-codex-mini")
    }
    assert list(prices.values())[:3] == [3_000_000, 6_000_000, 3_000_000]
    assert prices["gpt-5-codex-mini"] != 3_000_000
    assert book(tmp_path, "").hash == Book().hash


def test_omitted_token_kinds_use_the_price_of_their_total(tmp_path: Path) -> None:
    ours = book(tmp_path, ENTRY + 'cache_write_5m = "1.25"\n')
    kinds = [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1)]
    prices = [ours.price("openai", "gpt-5-codex", None, NOW, *kind) for kind in kinds]
    assert prices == [1_000_000, 1_000_000, 1_250_000, 1_250_000, 2_000_000]


def test_from_is_inclusive_and_until_exclusive(tmp_path: Path) -> None:
    ours = book(tmp_path, ENTRY + "from = 2026-10-01\nuntil = 2026-11-01T12:00:00+02:00\n")
    theirs = Book().price("openai", "gpt-5-codex", None, NOW, 1, 0, 0, 0, 1)

    def price(ns: int) -> int | None:
        return ours.price("openai", "gpt-5-codex", None, ns, 1, 0, 0, 0, 1)

    start, end = at("2026-10-01"), at("2026-11-01T10:00:00")
    assert [price(start - 1), price(start), price(end - 1), price(end)] == [theirs, 3_000_000, 3_000_000, theirs]


def test_own_price_for_an_unknown_model_with_all_options(tmp_path: Path) -> None:
    text = """
    [[price]]
    provider = "openai"
    model = "in-house-1"
    tier = "auto"
    speed = "fast"
    input = "0.000001"
    output = "0"
    [[price.above]]
    input_tokens = 100
    input = "5"
    output = "6"
    """
    ours = book(tmp_path, text)
    assert ours.price("openai", "in-house-1", "auto", NOW, 60, 40, 0, 0, 7, speed="fast") == 100
    assert ours.price("openai", "in-house-1", "auto", NOW, 61, 40, 0, 0, 1, speed="fast") == 511_000_000
    assert ours.price("openai", "in-house-1", "auto", NOW, 1, 0, 0, 0, 0) is None
    assert ours.price("openai", "in-house-1", None, NOW, 1, 0, 0, 0, 0) is None


def test_hash_depends_on_prices_and_not_on_the_file(tmp_path: Path) -> None:
    plain = book(tmp_path, ENTRY).hash
    assert plain != Book().hash
    assert plain == book(tmp_path, "# a remark\n" + ENTRY.replace('"1"', '"1.00"')).hash
    assert plain != book(tmp_path, ENTRY.replace('"1"', '"1.01"')).hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY.replace('"1"', "1.25"), 'entry 1 (openai/gpt-5-codex), `input`: must be a decimal string: write "1.25"'),
        (ENTRY.replace('"1"', "1"), 'write "1", in quotes'),
        (ENTRY.replace('"1"', '"1e3"'), "`input`: must be dollars per million tokens"),
        (ENTRY.replace('"1"', '"-1"'), "`input`: must be dollars per million tokens"),
        (ENTRY.replace('"1"', '"0.0000001"'), "at most 6 decimals"),
        (ENTRY.replace('input = "1"', ""), "`input`: is missing"),
        (ENTRY + 'colour = "red"\n', "`colour`: is not a field we know"),
        (ENTRY + 'from = "2026-10-01"\n', "`from`: must be a date like 2026-10-01, not in quotes"),
        (ENTRY + "from = 2026-10-01T00:00:00\n", "`from`: must have an offset"),
        (ENTRY + "from = 2026-10-02\nuntil = 2026-10-02\n", "`until` must be later than `from`"),
        (ENTRY + ENTRY, "entries 1 and 2 (openai/gpt-5-codex) apply at the same time"),
        (ENTRY + 'tier = "default"\n' + ENTRY, "entries 1 and 2"),
        (ENTRY + '[[price.above]]\ninput_tokens = 5\ninput = "1"\noutput = "1"\n' * 2, "`above` must go up"),
        ("prices = 1", "`prices`: is not a field we know"),
        ("price = 3", "`price`"),
        ("[[price]", "is not TOML"),
    ],
)
def test_invalid_files_are_reported_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        overlay(tmp_path, text)
    assert message in caught.value.message
    assert "prices.toml" in caught.value.message
    assert caught.value.hint


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml cannot be read: No such file"):
        read_overlay(tmp_path / "nowhere.toml")


def test_documented_price_file_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "pricing.md"
    blocks = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        assert overlay(tmp_path, block).entries
