"""Which session started which: told by the result of the parent's spawn tool, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import SHARED
from tests.support.otlp_bodies import AT_NS, SECRET, Group, Record, codex_noise, codex_record, codex_response, encode
from tests.support.otlp_spans import Attribute, MadeSpan
from tests.support.otlp_spans import encode as encode_spans

from tallystream.schemas.clients.links import MARK, MAX_LINKS, FoundLink, mentions_tool, session_links, span_links
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway.ingest import decode

CHILD = "01a1ffa0-ba82-70b2-8c49-8b4fec05b4b6"
PARENT = "01a1ffa0-b9f9-7b91-9e6e-0740010a725c"
BOTH = pytest.mark.parametrize("encoding", list(Encoding))


def spawned(child: str = CHILD, parent: str = "s-1", tool: str = "spawn_agent", **more: str) -> Record:
    output = f'{{"agent_id":"{child}","nickname":"{SECRET}"}}'
    values = {"tool_name": tool, "output": output, "arguments": f'{{"message": "{SECRET}"}}', "agent_name": "/root"}
    return codex_record("codex.tool_result", parent, "gpt-5.1-codex", AT_NS, **(values | more))


def found(*records: Record) -> list[FoundLink]:
    """Return the links in both encodings, which must agree."""
    first, second = (session_links(encode([Group(list(records))], encoding), encoding) for encoding in Encoding)
    assert first == second
    return first


def test_spawn_tool_result_links_the_child_session() -> None:
    assert found(*codex_noise(), spawned(), codex_response(), *codex_noise()) == [FoundLink(CHILD, "s-1")]


def test_copies_add_no_links_and_two_children_are_two_links() -> None:
    other = CHILD.replace("0", "1")
    assert found(spawned(), spawned(), spawned(other)) == [FoundLink(CHILD, "s-1"), FoundLink(other, "s-1")]


@pytest.mark.parametrize(
    "record",
    [
        spawned(tool="exec_command"),  # the word in what a command prints is not a link
        spawned(tool="wait_agent"),
        spawned(parent=""),
        spawned(parent=CHILD),
        spawned(child="not-an-id"),
        spawned(output="spawn_agent failed"),
    ],
)
def test_other_records_are_not_links(record: Record) -> None:
    assert found(record) == []


@BOTH
def test_same_named_tool_of_another_program_is_not_a_link(encoding: Encoding) -> None:
    record = spawned().having(**{"event.name": "other.tool_result"})
    assert session_links(encode([Group([record], {"service.name": "other"}, "other")], encoding), encoding) == []


def test_number_of_links_per_body_is_limited() -> None:
    many = [spawned(f"{number:08x}-0000-0000-0000-000000000000") for number in range(MAX_LINKS + 10)]
    assert len(found(*many)) == MAX_LINKS


@BOTH
def test_links_contain_only_ids(encoding: Encoding) -> None:
    decoded = decode(encode([Group([spawned(), codex_response()])], encoding), encoding, "logs")
    assert decoded.links == [FoundLink(CHILD, "s-1")]
    assert SECRET not in repr(decoded)


@pytest.mark.skipif(not (SHARED / "captures").is_dir(), reason="there are no recordings beside this checkout")
def test_recorded_subagents_have_their_parent() -> None:
    folder = SHARED / "captures" / "codex-binary-subagent"
    links = [link for path in folder.glob("*.logs.pb") for link in session_links(path.read_bytes(), Encoding.PROTOBUF)]
    assert links == [FoundLink(CHILD, PARENT)]
    traces = [path.read_bytes() for path in folder.glob("*.traces.pb")]
    assert [link for body in traces for link in span_links(body, Encoding.PROTOBUF)] == links


def codex_span(name: str, parent: str = "", session: str | None = None, tool: str | None = None) -> MadeSpan:
    """A span as Codex sends it; its spans in between name no conversation."""
    named: dict[str, Attribute] = {"thread.name": "worker", "arguments": SECRET}
    named |= {key: value for key, value in (("conversation.id", session), ("tool_name", tool)) if value is not None}
    return MadeSpan(name, named, parent, scope="codex_exec", resource={"service.name": "codex_exec"})


def linked(*spans: MadeSpan) -> list[FoundLink]:
    """Return the links in both encodings, which must agree."""
    found = [decode(encode_spans(spans, encoding), encoding, "traces") for encoding in Encoding]
    assert found[0].links == found[1].links
    assert all(one.logs is not None and not one.logs.rejected and not one.sightings for one in found)
    return found[0].links


def test_session_below_the_spawn_tool_s_span_was_started_by_its_session() -> None:
    grandchild = CHILD.replace("0", "1")
    spans = [
        codex_span("turn", "", PARENT),
        codex_span("spawn", "turn", PARENT, "multi_agent_v1spawn_agent"),
        codex_span("dispatch", "spawn"),
        codex_span("child", "dispatch", CHILD),
        codex_span("again", "child", CHILD, "spawn_agent"),
        codex_span("below", "again", grandchild),
        codex_span("other tool", "child", CHILD, "exec"),
    ]
    assert set(linked(*reversed(spans))) == {FoundLink(grandchild, CHILD), FoundLink(CHILD, PARENT)}


def test_other_spans_link_nothing() -> None:
    spawn = codex_span("spawn", "", PARENT, "spawn_agent")
    assert linked(spawn, codex_span("same", "spawn", PARENT)) == []
    assert linked(spawn, codex_span("apart", "unseen", CHILD)) == []
    assert linked(spawn, codex_span("odd", "spawn", "not an id")) == []
    assert linked(spawn, codex_span("circle", "circle", CHILD)) == []
    assert linked(codex_span("wait", "", PARENT, "wait_agent"), codex_span("child", "wait", CHILD)) == []
    assert linked(spawn, replace(codex_span("child", "spawn", CHILD), scope="another")) == []


@given(
    st.lists(
        st.sampled_from([b"w", b"spa", b"spawn", b"spawn_agen", b"wn_agent", MARK, b"-" * 100, b"w" * 50]), max_size=9
    )
)
def test_name_of_the_tool_is_found_wherever_it_is(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert mentions_tool(body) is (MARK in body)
