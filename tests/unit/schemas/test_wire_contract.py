"""Topics, headers, versions, count names, hashes and dead letters, on which other programs rely, are defined in one
place.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas import ingest, keys, topic_names
from tallystream.schemas.catalogue import CATALOGUE, SCHEMA_HEADER, schema_of
from tallystream.schemas.connections import hash_secret
from tallystream.schemas.dead_letter_builder import MAX_DETAIL, dead_letter
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_NS, is_final, last_final_hour
from tallystream.schemas.rows import SUM_COUNTS, Sums
from tallystream.schemas.usage import DISJOINT_COUNTS, TOKEN_COUNTS, UsageBatch, UsageEvent
from tallystream.schemas.versions import find_version, supersedes
from tallystream.streams.kafka.topics import Topics

ROOT = Path(__file__).parents[3]
AT = datetime(2026, 11, 21, 14, 0, 0, 123456, UTC)
NAMES = {value for name, value in vars(topic_names).items() if name.isupper()}
DOTTED = {name for name in NAMES if "." in name}
"""Names that can only mean a topic, so that a literal of one is a duplicate of its definition."""


@cache
def literals() -> Sequence[tuple[str, str]]:
    """Return (place, text) of every string literal of the code, parts of f-strings included, docstrings left out."""
    found = []
    for folder in ("schemas", "streams", "agents", "src"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            docs = {
                id(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and id(node) not in docs and isinstance(node.value, str | bytes):
                    text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


def where(*texts: str) -> set[str]:
    return {place.partition(":")[0] for place, text in literals() if any(one in text for one in texts)}


@pytest.mark.thorough
def test_topic_names_are_defined_in_one_place() -> None:
    found = {place.partition(":")[0] for place, text in literals() if text in DOTTED}
    assert found == {"schemas/topic_names.py"}


def test_every_topic_uses_the_defined_names() -> None:
    topics = Topics("p")
    names = {spec.name.removeprefix("p.") for spec in topics.all()} - {
        topics.session_hours_changelog.name,
        topics.calls_changelog.name,
    }
    assert names == NAMES
    assert {schema.topic for schema in CATALOGUE.values()} <= NAMES


@pytest.mark.thorough
def test_schema_headers_are_created_only_by_the_catalogue() -> None:
    headers = {schema.header.decode() for schema in CATALOGUE.values()}
    assert not [place for place, text in literals() if text in headers]
    assert schema_of(UsageBatch).headers == [(SCHEMA_HEADER, b"usage-batch/1")]


@pytest.mark.thorough
def test_ingest_path_and_header_are_defined_in_one_place() -> None:
    assert where(ingest.INGEST_PATH.rstrip("/"), ingest.CONNECTION_HEADER) == {"schemas/ingest.py"}


@pytest.mark.thorough
def test_count_names_are_defined_in_one_place() -> None:
    """A tuple, list or set with three or more consecutive count names is treated as a list of counts."""
    found = set()
    for folder in ("schemas", "streams", "agents", "src"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Tuple | ast.List | ast.Set):
                    named = [
                        one.value for one in node.elts if isinstance(one, ast.Constant) and one.value in TOKEN_COUNTS
                    ]
                    if len(named) > 2:
                        found.add(str(path.relative_to(ROOT)))
    # The simulator's Response defines them separately, because the counts are checked against it.
    # Prices and bills name each kind of token that is charged separately, in the order in which they are shown.
    charged = {"agents/reconciliation/seen.py", "src/tallystream/console/build.py"}
    assert found == {"schemas/usage.py", "src/tallystream/simulator/agent.py", *charged}


def test_count_names_match_the_models() -> None:
    assert set(TOKEN_COUNTS) == {*DISJOINT_COUNTS, "reasoning"}
    assert all(UsageEvent.model_fields[name].default == 0 for name in TOKEN_COUNTS)
    assert set(SUM_COUNTS) == set(Sums.model_fields) - {"cost_usd", "reported_cost_usd"}


def test_secrets_are_hashed_in_one_place() -> None:
    assert hash_secret("s3cret") == hashlib.sha256(b"s3cret").hexdigest()
    as_a_header_is_read = b"\xff\xfe".decode("ascii", "surrogateescape")
    assert hash_secret(as_a_header_is_read) == hashlib.sha256(b"\xff\xfe").hexdigest()


@pytest.mark.parametrize(("after_ns", "final"), [(-1, False), (0, False), (HOUR_NS - 1, False), (HOUR_NS, True)])
def test_hour_is_final_one_hour_after_its_end(after_ns: int, final: bool) -> None:
    assert is_final(10, 11 * HOUR_NS + after_ns) is final


@given(st.integers(0, 10**6), st.integers(0, 10**19))
def test_last_final_hour_is_the_newest_final_one(hour: int, now_ns: int) -> None:
    assert is_final(hour, now_ns) == (hour <= last_final_hour(now_ns))
    assert is_final(last_final_hour(now_ns), now_ns)
    assert not is_final(last_final_hour(now_ns) + 1, now_ns)


PAIR = st.tuples(st.integers(0, 2**62), st.integers(0, 2**62))


@given(PAIR, st.booleans(), st.text())
def test_version_is_found_in_every_row(version: tuple[int, int], spaced: bool, text: str) -> None:
    row = {"session_id": f'"version":[9,9] {text}'.encode(errors="replace").decode(), "version": list(version)}
    value = orjson.dumps(row, option=orjson.OPT_INDENT_2 if spaced else 0)
    assert find_version(value) == version


@pytest.mark.parametrize("value", [None, b"", b"[]", b'{"version":3}', b'{"version":["a",1]}', b'{"version":[1]}'])
def test_records_other_than_rows_have_no_version(value: bytes | None) -> None:
    assert find_version(value) is None


@given(st.lists(PAIR, min_size=1, max_size=6))
def test_highest_version_wins_and_the_later_of_two_equal_ones(versions: list[tuple[int, int]]) -> None:
    kept: tuple[tuple[int, int], int] | None = None
    for number, version in enumerate(versions):
        if supersedes(version, kept and kept[0]):
            kept = version, number
    highest = max(versions)
    assert kept == (highest, max(n for n, version in enumerate(versions) if version == highest))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4),
    st.text(st.characters(exclude_categories=())),
    st.dictionaries(st.text(), ANYTHING, max_size=3) | st.none(),
    st.sampled_from(Reason),
)
def test_dead_letter_can_be_built_from_anything_and_read(
    source: list[str], detail: str, record: dict[str, Any] | None, reason: Reason
) -> None:
    key, value = dead_letter(tuple(source), reason, detail, AT, record=record, connection_id="codex-7f3a", size=3)
    letter = DeadLetter.model_validate_json(value)
    assert keys.split(key) == tuple(source)
    assert (letter.source, letter.reason, letter.at) == (key.decode(), reason, AT)
    assert letter.detail == detail[:MAX_DETAIL].encode(errors="replace").decode()
    assert (letter.connection_id, letter.size, letter.sha256, letter.client) == ("codex-7f3a", 3, None, None)
    assert set(letter.record) == {name.encode(errors="replace").decode() for name in record or {}}


@pytest.mark.parametrize("record", [None, {}, orjson.Fragment(b'{"a":1}')])
def test_invalid_utf8_in_the_detail_does_not_change_the_record(record: dict[str, Any] | orjson.Fragment | None) -> None:
    _, value = dead_letter(("usage", "0"), Reason.UNDECODABLE, "half an emoji: \ud83d", AT, record=record)
    letter = DeadLetter.model_validate_json(value)
    assert letter.detail == "half an emoji: ?"
    assert letter.record == ({"a": 1} if isinstance(record, orjson.Fragment) else {})


def test_numbers_of_any_size_are_preserved() -> None:
    _, value = dead_letter(("usage", "0"), Reason.INVALID_COUNTS, "too many", AT, record={"output": 2**70, "at": "x"})
    assert DeadLetter.model_validate_json(value).record == {"output": 2**70, "at": "x"}
