"""Witnesses: what the metrics and spans of a client say of the usage that is counted from its logs.

A witness is never a cost. It is compared with what was counted, so that lost logs are noticed. A statement is one
metric point or one span, and it has an identity of its own, so that a reader can tell a copy. It says only how many
input tokens (cached ones and those of tools included) and output tokens (reasoning included) there were, because all
signals agree on these.

Measured on recordings of the clients (Codex 0.169.0, Claude Code 2.1.330, Gemini CLI 0.61.0, Qwen Code 0.24.4):

- Codex: the span `session_task.turn` has a whole turn's usage, compaction included, and its `thread.id` is the session.
  The spans `handle_responses` below it name no session. The metric `codex.turn.token_usage` names no session either, so
  it is compared with a connection's total. A turn that fails is in neither.
- Claude Code: the metric `claude_code.token.usage`, delta or cumulative, and the spans `claude_code.llm_request`.
- Gemini CLI: the metric `gemini_cli.token.usage` (cumulative). Its output is without thoughts, which are another type.
- Qwen Code: the metric `qwen-code.token.usage`. Its output includes thoughts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from tallystream.schemas.clients.base import bounded, identity, text
from tallystream.schemas.otlp import LIMITS, Encoding, Limits, json_points, protobuf_points
from tallystream.schemas.otlp.limits import DecodingBudget
from tallystream.schemas.otlp.points import MetricPoint, MetricsBody
from tallystream.schemas.otlp.records import Attributes, Value
from tallystream.schemas.otlp.spans import Span
from tallystream.schemas.usage import MAX_SESSION_BYTES

Source = Literal["metrics", "spans"]
Side = Literal["input", "output"]
MAX_STATEMENTS: Final = 4_096
"""Maximum number of statements taken from one body; a client's has a dozen."""
MOST: Final = 2**43
"""Limit of a count: a million of them still fit into 64 bits."""


@dataclass(slots=True)
class Statement:
    """What one metric point or span says. Never changed; frozen would make creating it three times as slow."""

    id: str
    """Equal for every copy. Of a cumulative metric: equal for all points of a series since the same start."""
    source: Source
    at_ns: int
    cumulative: bool
    """Whether the counts are those since the start of the series, and not only new ones."""
    input: int
    output: int


@dataclass(frozen=True, slots=True)
class WitnessPack:
    """Statements of one session, or of a client whose metrics do not name it ("")."""

    client: str
    version: str
    """The client's version, "" when it is not known."""
    session_id: str
    statements: list[Statement]


@dataclass(slots=True)
class Witnesses:
    """Collects the statements of one body."""

    packs: dict[tuple[str, str, str], WitnessPack] = field(default_factory=dict)
    left_out: int = 0
    """Statements that cannot be read, or exceed MAX_STATEMENTS."""
    _number: int = 0
    _resource: Mapping[str, Value] = field(default_factory=dict)
    """Of the point read last: those of one resource follow each other."""
    _origin: tuple[str | None, str | None, str | None] = (None, None, None)
    """Its instance, host and version."""

    def add(self, client: str, version: str, session_id: str, statement: Statement) -> None:
        """Add a statement, unless it says nothing."""
        if not statement.input and not statement.output:
            return
        if self._number >= MAX_STATEMENTS or not _fits(session_id) or statement.at_ns <= 0 or statement.at_ns >= 2**63:
            self.left_out += 1
            return
        self._number += 1
        key = (client, version, session_id)
        if key not in self.packs:
            self.packs[key] = WitnessPack(client, version, session_id, [])
        self.packs[key].statements.append(statement)

    def span(self, span: Span, attributes: Attributes) -> None:
        """Add what a span of a client says that is counted from its logs."""
        for rule in _SPANS:
            whole = [attributes.get(name) for name in rule.input]
            output = attributes.get(rule.output)
            session = attributes.get(rule.session)
            if whole[0] is None or output is None or not isinstance(session, str):
                continue
            if rule.scope and not span.scope.startswith(rule.scope):
                continue
            counts = [_count(value) for value in (*whole, output)]
            if None in counts or not span.is_identified:
                self.left_out += 1
                return
            *parts, last = (count or 0 for count in counts)
            said = Statement(identity(span.trace_id, span.span_id), "spans", span.end_ns, False, sum(parts), last)
            self.add(rule.client, _version(span.resource, attributes), session, said)
            return

    def point(self, point: MetricPoint) -> None:
        """Add what a point of one of METRICS says."""
        rule = _METRICS[point.metric]
        values = point.attributes
        side = rule.sides.get(text(values.get(rule.kind)) or "")
        if side is None:
            return
        value = _count(point.value)
        if value is None:
            self.left_out += 1
            return
        if point.resource is not self._resource:
            self._resource = point.resource
            self._origin = _origin(point.resource)
        *where, version = self._origin
        series: list[Value] = [point.metric, *where, *_series(values), point.start_ns]
        if not point.cumulative:
            series.append(point.time_ns)
        sent, received = (value, 0) if side == "input" else (0, value)
        said = Statement(identity(*series), "metrics", point.time_ns, point.cumulative, sent, received)
        session = values.get("session.id")
        self.add(
            rule.client,
            version or text(values.get("app.version")) or "",
            session if isinstance(session, str) else "",
            said,
        )


def read_metrics(body: bytes, encoding: Encoding, limits: Limits = LIMITS) -> tuple[int, Witnesses]:
    """Return the number of points of a metrics request, and what they say.

    Raises:
        InvalidBodyError: it is not a metrics request, or exceeds a limit.

    """
    decoded = json_points.points if encoding is Encoding.JSON else protobuf_points.points
    found, points = Witnesses(), MetricsBody(decoded(body, METRICS, DecodingBudget(limits)))
    for point in points:
        found.point(point)
    return points.records, found


@dataclass(frozen=True, slots=True)
class _SpanRule:
    client: str
    scope: str
    session: str
    input: tuple[str, ...]
    """Counts that add up to all input tokens; the first one is always present."""
    output: str


@dataclass(frozen=True, slots=True)
class _MetricRule:
    client: str
    kind: str
    """The attribute that says what kind of tokens a point counts."""
    sides: Mapping[str, Side]


_SPANS: Final = (
    _SpanRule(
        "codex", "", "thread.id", ("codex.turn.token_usage.input_tokens",), "codex.turn.token_usage.output_tokens"
    ),
    _SpanRule(
        "claude",
        "com.anthropic.claude_code",
        "session.id",
        ("input_tokens", "cache_read_tokens", "cache_creation_tokens"),
        "output_tokens",
    ),
)
SPAN_BYTES: Final = re.compile(rb"codex\.turn\.token_usage\.input_tokens|\x0cinput_tokens")
"""Finds these spans in protobuf; \\x0c is the length of the name."""
SPAN_NAMES: Final = re.compile(r"^(?:codex\.turn\.token_usage\.input_tokens|input_tokens)$", re.MULTILINE)
_METRICS: Final = {
    "codex.turn.token_usage": _MetricRule("codex", "token_type", {"input": "input", "output": "output"}),
    "claude_code.token.usage": _MetricRule(
        "claude", "type", {"input": "input", "cacheRead": "input", "cacheCreation": "input", "output": "output"}
    ),
    "gemini_cli.token.usage": _MetricRule(
        "gemini", "type", {"input": "input", "tool": "input", "output": "output", "thought": "output"}
    ),
    "qwen-code.token.usage": _MetricRule("qwen", "type", {"input": "input", "output": "output"}),
}
METRICS: Final = frozenset(_METRICS)


def _origin(resource: Mapping[str, Value]) -> tuple[str | None, str | None, str | None]:
    """Return the instance, host and version that a resource names."""
    instance, host, version = map(resource.get, ("service.instance.id", "host.name", "service.version"))
    return text(instance), text(host), text(version)


def _series(values: Mapping[str, Value]) -> list[Value]:
    """Return what tells a series from others of the same metric and origin: all its attributes."""
    found: list[Value] = []
    for name in sorted(values):
        value = values[name]
        found += (bounded(name), bounded(value) if isinstance(value, str) else repr(value))
    return found


def _version(resource: Mapping[str, Value], attributes: Attributes) -> str:
    return text(resource.get("service.version")) or text(attributes.get("app.version")) or ""


def _count(value: Value) -> int | None:
    """Return a count of tokens, 0 when it is absent; None when it is not a whole number that fits."""
    if value is None:
        return 0
    if (type(value) is not int and type(value) is not float) or not 0 <= value < MOST:
        return None
    whole = int(value)
    return whole if whole == value else None


def _fits(session_id: str) -> bool:
    return "\0" not in session_id and len(session_id.encode()) <= MAX_SESSION_BYTES
