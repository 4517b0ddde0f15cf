"""A Claude Code agent: runs of the client one after another, in a script or in the terminal.

Subagents and a resumed run keep the session's id, `event.sequence` starts over with each run, and each response has a
request id. The client says what it believes a response cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tallystream.simulator.agent import Agent, AgentContext, ClientCounts, uuid4
from tallystream.simulator.clients.claude import records, signals
from tallystream.simulator.clients.claude.models import FAST, MODELS, SMALL, SPEEDS, estimate, pico_of
from tallystream.simulator.clients.claude.records import SUBAGENT, ClaudeRecordKind
from tallystream.simulator.model import OtlpTransport, Request, Signal, SimulatedSession
from tallystream.simulator.population import Mix

HEADLESS, TERMINAL, TITLE = "sdk", "repl_main_thread", "generate_session_title"
SOURCES: Mix[str] = Mix([(HEADLESS, 35), (TERMINAL, 65)])
TERMINALS: Mix[str] = Mix([("xterm-256color", 50), ("vscode", 30), ("iTerm.app", 20)])
EFFORTS: Mix[str] = Mix([("medium", 60), ("high", 30), ("low", 10)])
LIFETIMES: Mix[float] = Mix([(0.0, 60), (1.0, 30), (0.5, 10)])
"""The share of cache writes that are kept for an hour, as for subscribers."""


@dataclass(frozen=True)
class Thread:
    """Who asks in a session: the client itself or a subagent of it."""

    kind: ClaudeRecordKind
    context: AgentContext
    effort: str
    agent_id: str = ""


class ClaudeAgent(Agent):
    """Claude Code 2.1, `claude -p` and sessions in the terminal."""

    BODY_RESPONSES = Mix([(1, 34), (2, 30), (3, 22), (4, 14)])
    TRANSPORT = OtlpTransport("OTel-OTLP-Exporter-JavaScript/0.208.0", chunked=False)
    RESOLUTION_NS = 1_000_000
    NAMES = MappingProxyType(
        {
            "team": "team", "repo": "vcs.repository.name", "branch": "vcs.ref.head.name", "cost_center": "cost.center",
            "env": "deployment.environment.name",
        }
    )  # fmt: skip
    _last: SimulatedSession | None = None
    _session: SimulatedSession
    _resource = b""
    _shared: tuple[bytes, ...] = ()
    _long = 0.0
    _sequence = 0
    _prompt = _request = _tool = _agent_id = ""

    def process(self) -> Iterator[Request]:
        """Run `claude -p` once, or a session in the terminal."""
        rng = self.rng
        source = SOURCES.pick(rng)
        traced = rng.random() < self.options.traces
        self._start()
        kind = ClaudeRecordKind(MODELS.pick(rng), source, rng.random() < 0.3, traced)
        thread = Thread(kind, AgentContext(rng), EFFORTS.pick(rng))
        self._noise("start", thread)
        for turn in range(1 if source == HEADLESS else 1 + int(rng.random() ** 2 * 10)):
            if not self.left:
                break
            self._prompt = uuid4(rng)
            self._noise("prompt", thread)
            if source == TERMINAL and turn == 0 and self.left > 1:
                self._respond(Thread(replace(kind, model=SMALL, source=TITLE), AgentContext(rng), ""), spoken=True)
            yield from self._turn(thread)
            if source == TERMINAL and rng.random() < 0.06:
                # `/model`: the session continues with another model.
                thread = Thread(replace(kind, model=MODELS.pick(rng)), thread.context, thread.effort)
        if source == TERMINAL and rng.random() < 0.1:
            self._noise("swept", thread)
        if traced:
            yield self.side("traces", self._session.session_id)
        if not self.exporter.empty:
            yield self._cut(last=True)
        if rng.random() < self.options.metrics:
            yield self.side("metrics", self._session.session_id)

    def _start(self) -> None:
        """Choose the resource and the session; one run in eight resumes the session before, maybe on another branch."""
        person, rng, wire = self.person, self.rng, self.options.wire
        said, attribution = self.told()
        login, lifetime = rng.random() < 0.6, LIFETIMES.pick(rng)
        if person.user:
            said = [*said, ("enduser.id", person.user)]
        resumed = self._last.session_id if self._last is not None and rng.random() < 0.12 else None
        user = person.user or (person.email if login else person.installation)
        self._session = self._last = SimulatedSession("claude", "anthropic", resumed or uuid4(rng), user, attribution)
        self._resource = records.resource(wire, said)
        self._long, self._sequence = lifetime, 0
        common = records.common(wire, person, self._session.session_id, said, TERMINALS.pick(rng), login=login)
        trace = wire.identifier(rng.getrandbits(128).to_bytes(16, "big"))
        self._shared = (common, trace, wire.identifier(rng.getrandbits(64).to_bytes(8, "big")))

    def _turn(self, thread: Thread) -> Iterator[Request]:
        """Answer a prompt, step by step."""
        rng = self.rng
        steps = 1 + int(rng.random() ** 2 * 9)
        for step in range(steps):
            if not self.left:
                return
            self._respond(thread, spoken=step == steps - 1)
            if step < steps - 1 and self.left and rng.random() < 0.04:
                self._subagent(thread)
            if self.exporter.full:
                yield self._cut()

    def _respond(self, thread: Thread, *, spoken: bool) -> None:
        """One billed response and the records around it; the tool may be decided on before the response ends."""
        rng = self.rng
        self.advance(rng.random() * 0.5)
        self._request, self._tool = f"req_011C{rng.getrandbits(80):020x}", f"toolu_{rng.getrandbits(88):022x}"
        if not spoken:
            self._noise("call", thread)
        self._report(thread)
        self._noise("said", thread)
        if not spoken:
            self._noise("called", thread)

    def _subagent(self, parent: Thread) -> None:
        """Let a subagent work: its own context, but the same session."""
        rng = self.rng
        self._agent_id = f"a{rng.getrandbits(64):016x}"
        child = Thread(replace(parent.kind, source=SUBAGENT), AgentContext(rng), parent.effort, self._agent_id)
        for spoken in (False, True):
            if self.left:
                self._respond(child, spoken=spoken)
        self._noise("joined", child)

    def _report(self, thread: Thread) -> None:
        """Send the record with the counts; one in a hundred has a twin that differs in the request id alone."""
        rng = self.rng
        fresh, cached, output, _ = thread.context.next()
        written = int(fresh * (0.5 + rng.random() / 2))
        long = int(written * self._long)
        counts = ClientCounts(fresh - written, cached, written - long, long, output, 0)
        speed = SPEEDS.pick(rng) if thread.kind.model in FAST else "normal"
        durations = 80 + int(rng.random() * 9000), 9 + int(rng.random() * 70)
        self.now += self.gap
        self._token(thread, counts, speed, durations)
        if self.left and rng.random() < 0.01:
            self._request = f"req_011C{rng.getrandbits(80):020x}"
            self._token(thread, counts, speed, durations)

    def _token(self, thread: Thread, counts: ClientCounts, speed: str, durations: tuple[int, int]) -> None:
        wire, kind = self.options.wire, thread.kind
        usd = estimate(kind.model, speed, counts)
        attribute = wire.attribute
        own = [
            attribute("prompt.id", self._prompt),
            attribute("model", kind.model),
            attribute("input_tokens", counts.input_uncached),
            attribute("output_tokens", counts.output),
            attribute("cache_read_tokens", counts.cache_read),
            attribute("cache_creation_tokens", counts.cache_write_5m + counts.cache_write_1h),
            attribute("cache_creation_5m_tokens", counts.cache_write_5m),
            attribute("cache_creation_1h_tokens", counts.cache_write_1h),
            attribute("cost_usd", usd),
            attribute("cost_usd_micros", round(usd * 1e6)),
            attribute("duration_ms", durations[0]),
            attribute("ttft_ms", durations[1]),
            attribute("request_id", self._request),
            attribute("speed", speed),
            attribute("query_source", kind.source),
        ]
        if kind.model in FAST:
            own.append(attribute("effort", thread.effort))
        if thread.agent_id:
            own += (attribute("agent.name", "general-purpose"), attribute("agent_id", thread.agent_id))
        data = self.record(records.token_template(wire, kind.traced), self._shared, wire.between.join(own))
        response = self.bill(self._session, kind.model, counts, speed=speed, reported_pico=pico_of(usd))
        self.exporter.add_response(data, response)

    def _noise(self, shape: str, thread: Thread) -> None:
        variant = int(self.rng.random() * records.VARIANTS)
        self.emit(records.template(self.options.wire, shape, variant, thread.kind), self._shared)

    def mark(self) -> bytes:
        """Return `event.sequence`, which starts over with each run of the client."""
        self._sequence += 1
        return self.options.wire.attribute("event.sequence", self._sequence - 1)

    def extras(self) -> tuple[bytes, ...]:
        """Return ids: of prompt, request, tool use, message and subagent."""
        ids = (self._prompt, self._request, self._tool, uuid4(self.rng), self._agent_id)
        return tuple(text.encode() for text in ids)

    def _cut(self, *, last: bool = False) -> Request:
        def body(runs: Sequence[bytes]) -> bytes:
            return self.options.wire.logs(self._resource, [(records.EVENTS, runs)])

        return self.exporter.cut(self.now, body, last=last)

    def document(self, signal: Signal, session_id: str) -> tuple[bytes, int]:
        """Return metrics or traces."""
        return signals.body(signal, self.options.wire, session_id, self.now, self.used)
