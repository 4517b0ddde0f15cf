import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallystream.agents.port_sink.mapping.identifiers import LONGEST, decode, encode

# Port's own pattern, with Python's equivalent of \p{L}
PATTERN = re.compile(r"^(?!\.{1,2}$)(?:[^\W\d_]|[0-9@_.+:\\/=-])+$")
texts = st.text(min_size=1, max_size=40) | st.text(alphabet="=0123ABCDEF3D. ~", min_size=1, max_size=12)


@given(texts)
@example(".")
@example("..")
@example("=20 ")
@example("==3D20")
def test_identifier_is_legal_and_reversible(text: str) -> None:
    made = encode(text)
    assert PATTERN.match(made)
    assert decode(made) == text


@given(texts, texts)
def test_different_texts_have_different_identifiers(one: str, other: str) -> None:
    assert (encode(one) == encode(other)) == (one == other)


def test_legal_identifiers_are_unchanged() -> None:
    for text in ("gpt-5-codex", "codex-7f3a:0199-ab:2026-11-21T14:00:00Z", "ft:gpt-4o:acme::9xYz", "a=b", "é/ü"):
        assert encode(text) == text
    assert encode("ft:gpt-4o:acme:release notes:9xYz") == "ft:gpt-4o:acme:release=20notes:9xYz"


def test_long_texts_have_different_identifiers() -> None:
    one, other = "a" * 2000 + "b", "a" * 2000 + "c"
    assert len(encode(one)) <= LONGEST
    assert encode(one) != encode(other)
    assert PATTERN.match(encode("ü ~" * 900))


def test_empty_text_is_not_an_identifier() -> None:
    with pytest.raises(ValueError, match="empty"):
        encode("")
