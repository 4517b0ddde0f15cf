"""The scanner works in windows, so that a long value holds up nobody; what it finds must not depend on them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.schemas.otlp import json_scan
from tallystream.schemas.otlp.json_scan import Scanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
BLANKS = st.text(" \t\n", max_size=20)


def parts(text: bytes) -> list[bytes]:
    """Return the parts of the outermost array, and of the objects in it."""
    scanner = Scanner(text)
    found = []
    for element in scanner.elements(scanner.value()):
        found.append(text[element.start : element.stop])
        if found[-1].startswith(b"{"):
            found += [name + b"=" + text[value.start : value.stop] for name, value in scanner.members(element)]
    return [*found, b"damaged"] if scanner.damaged else found


@examples(300)
@given(st.lists(VALUES, max_size=5), BLANKS, st.integers(4, 40), st.integers(0, 3))
def test_parts_do_not_depend_on_the_window(values: list[Any], blanks: str, window: int, cut: int) -> None:
    texts = [json.dumps(value, ensure_ascii=False, separators=("," + blanks, ":" + blanks)) for value in values]
    text = ("[" + blanks + ("," + blanks).join(texts) + blanks + "]").encode()
    text = text[: len(text) - cut]
    with pytest.MonkeyPatch.context() as patch:
        whole = parts(text)
        patch.setattr(json_scan, "_WINDOW", window)
        patch.setattr(json_scan, "_SMALL_WINDOW", window)
        assert parts(text) == whole
    if not cut:
        elements = iter(whole)
        for value, written in zip(values, texts, strict=True):
            assert next(elements) == written.encode()
            if isinstance(value, dict):
                for name, member in value.items():
                    found = next(elements)
                    before = json.dumps(name, ensure_ascii=False)[1:-1].encode() + b"="
                    assert found.startswith(before), "a name may have an equals sign of its own"
                    assert json.loads(found.removeprefix(before)) == member


@pytest.mark.parametrize("blank", ["\ufeff", " \ufeff "])
def test_byte_order_mark_at_the_end_of_a_window_is_passed_over(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_scan, "_WINDOW", 16)
    for before in range(20):
        text = ("[" + " " * before + blank + "1," + blank + '"a"]').encode()
        assert parts(text) == [b"1", b'"a"']
