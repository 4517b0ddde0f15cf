"""A Codex agent: runs of the client one after another, their records cut into request bodies as its exporter cuts them.

A response is a run of noise records around one record that carries tokens. Noise is rendered from templates built once
a conversation and model; the token record is encoded anew, for its counts have no fixed size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from time import gmtime, strftime

from tallystream.simulator import codex_records, codex_signals
from tallystream.simulator.model import Request, Response, Session, Signal
from tallystream.simulator.options import AgentOptions
from tallystream.simulator.population import BRANCHES, MODELS, TIERED, TIERS, Mix, Person
from tallystream.simulator.wire import Part, Record, Template, Wire, template

HOUR_NS = 3_600_000_000_000
BODY_RESPONSES: Mix[int] = Mix([(1, 48), (2, 20), (3, 13), (4, 11), (5, 8)])
"""Responses a request body reports before it is cut; with those that end early, 1.9 as recorded."""
MODES: Mix[tuple[str, str]] = Mix(
    [(("codex_exec", "http"), 52), (("codex-tui", "http"), 33), (("codex_exec", "websocket"), 15)]
)
AUTHS: Mix[str | None] = Mix([(None, 40), ("ApiKey", 25), ("Chatgpt", 35)])
EFFORTS: Mix[str | None] = Mix([(None, 70), ("low", 10), ("medium", 12), ("high", 8)])


@lru_cache(maxsize=4096)
def _second(seconds: int) -> bytes:
    return strftime("%Y-%m-%dT%H:%M:%S.", gmtime(seconds)).encode()


def iso(ns: int) -> bytes:
    """Return `event.timestamp`: 24 characters, ms."""
    seconds, ms = divmod(ns // 1_000_000, 1000)
    return b"%b%03dZ" % (_second(seconds), ms)


def uuid7(ns: int, rng: Random) -> str:
    """Return a UUIDv7 of that time."""
    bits = (ns // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | 7 << 76 | rng.getrandbits(12) << 64
    digits = f"{bits | 2 << 62 | rng.getrandbits(62):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass
class Conversation:
    """One conversation of a process, with the templates of what it sends."""

    wire: Wire
    session: Session
    model: str
    tail: Part
    trace: bytes
    spans: list[bytes]
    context: int
    """Tokens the next request carries as its input."""
    templates: dict[tuple[str, int], Template] = field(default_factory=dict)

    def template(self, shape: str, variant: int) -> Template:
        """Return the shape's template, built at first use."""
        found = self.templates.get((shape, variant))
        if found is None:
            records = codex_records.records(self.wire, shape, variant)
            found = template(self.wire, records, self.tail, self.trace, self.spans)
            self.templates[shape, variant] = found
        return found


@dataclass
class _Batch:
    """What the exporter holds back until the next request."""

    wanted: int
    shift_ns: int
    runs: list[bytes] = field(default_factory=list)
    records: int = 0
    responses: list[Response] = field(default_factory=list)
    copies: int = 0


@dataclass(frozen=True)
class _Token:
    """A token record that was sent, and the number of the body from which on its copy may go out."""

    data: bytes
    response: Response
    due: int


class CodexAgent:
    """Sends exactly `options.quota` billed responses, spread over `options.span_ns` from `options.start_ns`."""

    def __init__(self, person: Person, rng: Random, options: AgentOptions) -> None:
        self._person = person
        self._rng = rng
        self._options = options
        self._wire = options.wire
        self._left = options.quota
        self._now = options.start_ns
        self._slot = options.span_ns // max(1, options.quota)
        self._gap = max(1000, min(9_000_000, self._slot // 60))
        self._flush = template(
            self._wire,
            [Record(Part(b"", 0), codex_records.FLUSH, (5, "DEBUG"), "flushing OTEL metrics", False, False)],
            Part(b"", 0), b"", [b""],
        )  # fmt: skip
        self._last: Session | None = None
        self._bodies = 0
        self._owed: list[_Token] = []
        self._resource = b""
        self._batch = self._fresh()

    def requests(self) -> Iterator[Request]:
        """Yield the agent's requests in the order of their `at_ns`."""
        while self._left:
            yield from self._process()

    def _process(self) -> Iterator[Request]:
        """One run of the client: `codex exec` once, or a session in the terminal."""
        rng, person = self._rng, self._person
        originator, transport = MODES.pick(rng)
        auth = AUTHS.pick(rng)
        branch = BRANCHES[int(rng.random() * len(BRANCHES))] if person.repo and rng.random() < 0.7 else None
        self._now = max(self._now, self._due(0.0))
        attributes, session = self._identify(originator, branch)
        self._resource = self._wire.resource(attributes)
        conversation = self._conversation(session, MODELS.pick(rng), originator, auth)
        self._emit(conversation, "start")
        if originator == "codex-tui" and rng.random() < 0.4:
            yield self._cut()
        if transport == "websocket":
            self._emit(conversation, "prewarm")
            self._token(conversation, (0, 0, 0, 0, 0), None, billed=False)
        turns = 1 if originator == "codex_exec" else 1 + int(rng.random() ** 2 * 12)
        for _ in range(turns):
            if not self._left:
                break
            self._emit(conversation, "prompt")
            steps = 1 + int(rng.random() ** 2 * 7)
            for step in range(steps):
                if not self._left:
                    break
                self._response(conversation, transport, spoken=step == steps - 1)
                if step < steps - 1 and self._left and rng.random() < 0.03:
                    self._subagent(conversation, originator, auth)
                if len(self._batch.responses) >= self._batch.wanted:
                    yield self._cut()
            if originator == "codex-tui" and rng.random() < 0.05:
                conversation = self._conversation(session, MODELS.pick(rng), originator, auth)
        if originator == "codex-tui":
            self._emit(conversation, "turn_cost")
        yield from self._end(session)

    def _end(self, session: Session) -> Iterator[Request]:
        """End the client: it flushes what it holds, and whatever it still had to repeat."""
        self._bodies += 20
        yield self._cut(flush=True)
        while self._owed:
            yield self._cut()
        sides: tuple[tuple[Signal, float], ...] = (("metrics", self._options.metrics), ("traces", self._options.traces))
        for signal, share in sides:
            if self._rng.random() < share:
                yield self._side(signal, session)

    def _identify(self, originator: str, branch: str | None) -> tuple[list[tuple[str, str]], Session]:
        """Return the resource's attributes and the session; one run in ten resumes the session before."""
        person = self._person
        own = {
            "team": person.team, "repo": person.repo, "branch": branch, "cost.center": person.cost_center,
            "env": person.env, "host.name": person.host,
        }  # fmt: skip
        dimension = {"cost.center": "cost_center", "host.name": "host"}
        attributes = [
            ("service.name", "codex_cli_rs" if originator == "codex-tui" else "codex_exec"),
            ("telemetry.sdk.name", "opentelemetry"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", "0.31.0"),
            ("service.version", codex_records.VERSION),
            *((key, value) for key, value in own.items() if value is not None),
            *((("user.id", person.user),) if person.user else ()),
        ]
        resumed = self._last is not None and self._rng.random() < 0.1
        self._last = Session(
            "codex", "openai",
            self._last.session_id if resumed and self._last is not None else uuid7(self._now, self._rng),
            person.user,
            tuple(sorted((dimension.get(key, key), value) for key, value in own.items() if value is not None)),
        )  # fmt: skip
        return attributes, self._last

    def _conversation(self, session: Session, model: str, originator: str, auth: str | None) -> Conversation:
        rng = self._rng
        tail = codex_records.tail(self._wire, self._person, session.session_id, model, originator, auth)
        spans = [rng.getrandbits(64).to_bytes(8, "big") for _ in range(4)]
        trace = rng.getrandbits(128).to_bytes(16, "big")
        return Conversation(self._wire, session, model, tail, trace, spans, 1500 + int(rng.random() * 9000))

    def _response(self, conversation: Conversation, transport: str, *, spoken: bool) -> None:
        """One billed response and all the records around it."""
        rng = self._rng
        self._now = max(self._now, self._due(rng.random() * 0.5))
        chance = rng.random()
        if transport == "http":
            if chance < 0.02:
                self._emit(conversation, "retried")
            elif chance < 0.03:
                self._emit(conversation, "cut")
            self._emit(conversation, "http")
            if rng.random() < 0.6:
                self._emit(conversation, "reasoning")
            self._emit(conversation, "spoken" if spoken else "call")
            self._emit(conversation, "completed")
        else:
            self._emit(conversation, "websocket")
        self._billed(conversation)
        if not spoken:
            self._emit(conversation, "called")

    def _subagent(self, parent: Conversation, originator: str, auth: str | None) -> None:
        """Let a subagent work: a conversation of its own in the same process, hence in the same bodies."""
        self._emit(parent, "spawned")
        session = Session(
            "codex", "openai", uuid7(self._now, self._rng), parent.session.user, parent.session.attribution
        )
        child = self._conversation(session, MODELS.pick(self._rng), originator, auth)
        self._emit(child, "start")
        for _ in range(2):
            if self._left:
                self._response(child, "http", spoken=True)

    def _billed(self, conversation: Conversation) -> None:
        """Draw the counts: the context grows, most of it is cached; now and then two responses differ in ns alone."""
        rng = self._rng
        fresh = int(rng.random() ** 3 * 6000) + 40
        total = min(conversation.context + fresh, 390_000)
        cached = conversation.context // 128 * 128 if rng.random() < 0.85 else 0
        written = int((total - cached) * rng.random()) if rng.random() < 0.15 else 0
        output = int(rng.random() ** 2 * 3000) + 5
        reasoning = int(output * rng.random() * 0.8)
        conversation.context = total + output if rng.random() > 0.02 else total // 8
        tier = TIERS.pick(rng) if conversation.model in TIERED else None
        counts = (total - cached - written, cached, written, output, reasoning)
        self._token(conversation, counts, tier)
        if self._left and rng.random() < 0.01:
            self._now += 137 - self._gap
            self._token(conversation, counts, tier)

    def _token(
        self,
        conversation: Conversation,
        counts: tuple[int, int, int, int, int],
        tier: str | None,
        *,
        billed: bool = True,
    ) -> None:
        """Put a token record into the batch. Codex's input holds cached and written, its output reasoning."""
        rng, wire, batch = self._rng, self._wire, self._batch
        uncached, cached, written, output, reasoning = counts
        self._now += self._gap
        at_ns = self._now - batch.shift_ns
        total = uncached + cached + written
        pairs: list[tuple[str, str | int]] = [
            ("event.name", "codex.sse_event"),
            ("event.kind", "response.completed"),
            ("input_token_count", str(total)),
            ("output_token_count", str(output)),
            ("cached_token_count", cached),
            ("cache_write_token_count", written),
            ("reasoning_token_count", reasoning),
            ("tool_token_count", str(total + output)),
        ]
        if billed:
            pairs.append(("ttft_ms", 9 + int(rng.random() * 900)))
        if tier is not None:
            pairs.append(("service_tier", tier))
        if billed and (effort := EFFORTS.pick(rng)) is not None:
            pairs.append(("model_reasoning_effort", effort))
        record = Record(wire.attributes(pairs), codex_records.TOKENS_NAME, traced=False)
        data = template(wire, [record], conversation.tail, b"", [b""]).render((wire.time(at_ns), iso(at_ns)))
        batch.runs.append(data)
        batch.records += 1
        if not billed:
            return
        self._left -= 1
        number = self._options.number + (self._options.quota - self._left - 1) * self._options.agents
        response = Response(
            number, conversation.session, conversation.model, tier, at_ns,
            uncached, cached, written, 0, output, reasoning, 0,
        )  # fmt: skip
        batch.responses.append(response)
        if rng.random() < self._options.duplicates:
            if rng.random() < 0.1:
                self._copy(_Token(data, response, 0))
            else:
                self._owed.append(_Token(data, response, self._bodies + 1 + int(rng.random() * 6)))

    def _copy(self, token: _Token) -> None:
        batch = self._batch
        batch.runs.append(token.data)
        batch.records += 1
        batch.responses.append(token.response)
        batch.copies += 1

    def _emit(self, conversation: Conversation, shape: str) -> None:
        """Put a run of noise records into the batch."""
        rng, wire, batch = self._rng, self._wire, self._batch
        found = conversation.template(shape, int(rng.random() * codex_records.VARIANTS))
        now, gap = self._now - batch.shift_ns, self._gap + int(rng.random() * 1e6)
        values: list[bytes] = []
        for _ in range(found.records):
            now += gap
            values += (wire.time(now), iso(now))
        values.append(b"call_%020x" % rng.getrandbits(80))
        self._now = now + batch.shift_ns
        batch.runs.append(found.render(values))
        batch.records += found.records

    def _fresh(self) -> _Batch:
        rng, options = self._rng, self._options
        shift = HOUR_NS + int(rng.random() * (options.late_max_ns - HOUR_NS)) if rng.random() < options.late else 0
        return _Batch(BODY_RESPONSES.pick(rng), shift)

    def _cut(self, *, flush: bool = False) -> Request:
        """End the batch: one request body."""
        self._bodies += 1
        due = [token for token in self._owed if token.due <= self._bodies]
        if due:
            self._owed = [token for token in self._owed if token.due > self._bodies]
            for token in due:
                self._copy(token)
        batch, wire = self._batch, self._wire
        scopes = [("codex_otel.log_only", batch.runs)] if batch.runs else []
        if flush:
            stamp = self._flush.render((wire.time(self._now - batch.shift_ns), b""))
            scopes.append(("codex_otel::metrics::client", [stamp]))
        body = wire.logs(self._resource, scopes)
        request = Request(
            self._options.number, self._now, "logs", body, wire.content_type, self._options.gzip,
            batch.records + flush, tuple(batch.responses), batch.copies, batch.shift_ns > 0,
        )  # fmt: skip
        self._batch = self._fresh()
        return request

    def _side(self, signal: Signal, session: Session) -> Request:
        """Return a body of metrics or traces: it repeats usage of the logs, and must add nothing to it."""
        body, records = codex_signals.body(signal, self._wire.content_type, session.session_id, self._now)
        return Request(
            self._options.number, self._now, signal, body, self._wire.content_type, self._options.gzip, records, ()
        )

    def _due(self, jitter: float) -> int:
        """Return when the next response is due."""
        done = self._options.quota - self._left
        return self._options.start_ns + int((done + jitter) * self._slot)
