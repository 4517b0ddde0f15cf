"""The grammar of OpenAI's line items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas.billing.line_item import KINDS, MODALITIES, LineItem, parse_line_item, undated


@pytest.mark.parametrize(
    ("text", "tier", "model", "modality", "kind", "window"),
    [
        ("gpt-5.3-codex, input", "standard", "gpt-5.3-codex", None, "input_uncached", "short"),
        ("gpt-5.5-2026-04-23, cached input", "standard", "gpt-5.5-2026-04-23", None, "cache_read", "short"),
        ("priority | gpt-5.6-sol, output, long context", "priority", "gpt-5.6-sol", None, "output", "long"),
        ("gpt-5.6-terra, cache writes", "standard", "gpt-5.6-terra", None, "cache_write_5m", "short"),
        ("gpt-5.6-terra, cache writes - 12hr", "standard", "gpt-5.6-terra", None, "cache_write_12h", "short"),
        ("gpt-image-1 image, cached input", "standard", "gpt-image-1", "image", "cache_read", "short"),
        ("gpt-image-2-2026-04-21 text, output", "standard", "gpt-image-2-2026-04-21", None, "output", "short"),
        ("gpt-realtime-2.1-mini-2026-08-28, audio input", "standard", "gpt-realtime-2.1-mini-2026-08-28", "audio",
         "input_uncached", "short"),
        ("evals | gpt-4o-mini-2024-07-18, input", None, "gpt-4o-mini-2024-07-18", None, "input_uncached", "short"),
        ("ft-gpt-4o-2024-08-06, output", "standard", "ft-gpt-4o-2024-08-06", None, "output", "short"),
        ("gpt-6-astra, input_tokens", "standard", "gpt-6-astra", None, "input_uncached", "short"),
    ],
)  # fmt: skip
def test_line_item_of_model_tokens_is_parsed(
    text: str, tier: str | None, model: str, modality: str | None, kind: str, window: str
) -> None:
    line = parse_line_item(text)
    assert (line.tier, line.model, line.modality, line.kind, line.window) == (tier, model, modality, kind, window)
    assert line.product is None


@pytest.mark.parametrize(
    ("text", "product"),
    [
        ("whisper", "whisper"),
        ("web search tool calls", "web search tool calls"),
        ("gpt-live-1, voice session", "gpt-live-1, voice session"),
        ("flex | gpt-5-mini", "gpt-5-mini"),
        ("assistants api | file search", "file search"),
        ("gpt-5, cached output", "gpt-5, cached output"),
        ("gpt-5 audio, image input", "gpt-5 audio, image input"),
        (", input", ", input"),
        ("gpt-5, input, short context", "gpt-5, input, short context"),
        ("", ""),
    ],
)
def test_lines_without_model_tokens_are_products(text: str, product: str) -> None:
    line = parse_line_item(text)
    assert line.product == product
    assert (line.model, line.kind) == (None, None)


@given(st.text())
def test_unknown_line_item_keeps_its_text(text: str) -> None:
    line = parse_line_item(text)
    assert line.text == text
    assert (line.kind is None) == (line.product is not None)


@given(
    st.sampled_from([None, "priority", "flex", "batch"]),
    st.from_regex(r"\Agpt-[a-z0-9.]{1,12}\Z").filter(lambda name: undated(name) == name),
    st.sampled_from(["", "-2026-04-23"]),
    st.sampled_from([None, *MODALITIES]),
    st.booleans(),
    st.sampled_from(sorted(KINDS)),
    st.booleans(),
)
def test_line_item_written_by_the_grammar_is_parsed_back(
    route: str | None, name: str, date: str, modality: str | None, before: bool, kind: str, long: bool
) -> None:
    head = f"{name}{date}" + (f" {modality}" if modality and before else "")
    tail = (f"{modality} " if modality and not before else "") + kind
    text = (f"{route} | " if route else "") + f"{head}, {tail}" + (", long context" if long else "")
    line = parse_line_item(text)
    assert line == LineItem(
        text, route, route or "standard", name + date, None if modality == "text" else modality, KINDS[kind],
        "long" if long else "short",
    )  # fmt: skip
    assert line.name == name


def test_dates_are_removed_from_model_names() -> None:
    assert undated("claude-sonnet-4-5-20250929") == "claude-sonnet-4-5"
    assert undated("gpt-5.5-2026-04-23") == "gpt-5.5"
    assert undated("gpt-4.1") == "gpt-4.1"
