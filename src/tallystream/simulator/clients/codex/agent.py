"""A Codex agent: runs of the client one after another, their records cut into request bodies as its exporter cuts them.

A response is a run of noise records around one record that carries tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tallystream.simulator.agent import Agent, AgentContext, ClientCounts, uuid7
from tallystream.simulator.clients.codex import records, signals
from tallystream.simulator.clients.codex.models import MODELS, TIERED, TIERS
from tallystream.simulator.model import OtlpTransport, Request, Signal, SimulatedSession
from tallystream.simulator.population import Mix
from tallystream.simulator.wire import WireScope

MODES: Mix[tuple[str, str]] = Mix(
    [(("codex_exec", "http"), 52), (("codex-tui", "http"), 33), (("codex_exec", "websocket"), 15)]
)
AUTHS: Mix[str | None] = Mix([(None, 40), ("ApiKey", 25), ("Chatgpt", 35)])
EFFORTS: Mix[str | None] = Mix([(None, 70), ("low", 10), ("medium", 12), ("high", 8)])
LOGS, METRICS = WireScope("codex_otel.log_only"), WireScope("codex_otel::metrics::client")


@dataclass
class Conversation:
    """One conversation of a process, with what all its records share."""

    session: SimulatedSession
    model: str
    context: AgentContext
    shared: tuple[bytes, bytes, bytes]
    """What all events have in common, trace id and span id, as a template takes them."""


class CodexAgent(Agent):
    """Codex 0.169, `codex exec` and terminal sessions, over HTTP and over a websocket."""

    BODY_RESPONSES = Mix([(1, 30), (2, 22), (3, 18), (4, 16), (5, 14)])
    TRANSPORT = OtlpTransport("OTel-OTLP-Exporter-Rust/0.31.0", chunked=False)
    NAMES = MappingProxyType(
        {
            "team": "team", "repo": "repo", "branch": "branch", "cost_center": "cost.center", "env": "env",
            "host": "host.name",
        }
    )  # fmt: skip
    _last: SimulatedSession | None = None
    _resource = b""

    def process(self) -> Iterator[Request]:
        """Run `codex exec` once, or a session in the terminal."""
        rng = self.rng
        originator, transport = MODES.pick(rng)
        auth = AUTHS.pick(rng)
        session = self._start(originator, auth)
        conversation = self._conversation(session, originator, auth)
        self._noise(conversation, "start")
        if originator == "codex-tui" and rng.random() < 0.3:
            yield self._cut()
        if transport == "websocket":
            self._noise(conversation, "prewarm")
            self._warm_up(conversation)
        turns = 1 if originator == "codex_exec" else 1 + int(rng.random() ** 2 * 12)
        for _ in range(turns):
            if not self.left:
                break
            self._noise(conversation, "prompt")
            steps = 1 + int(rng.random() ** 2 * 8)
            for step in range(steps):
                if not self.left:
                    break
                self._respond(conversation, transport, spoken=step == steps - 1)
                if step < steps - 1 and self.left and rng.random() < 0.03:
                    self._subagent(conversation, originator, auth)
                if self.exporter.full:
                    yield self._cut()
            if originator == "codex-tui" and rng.random() < 0.05:
                # `/model`: the conversation continues with another model.
                conversation = self._conversation(session, originator, auth)
        if originator == "codex-tui":
            self._noise(conversation, "turn_cost")
        yield self._cut(last=True)
        sides: tuple[tuple[Signal, float], ...] = (("metrics", self.options.metrics), ("traces", self.options.traces))
        for signal, share in sides:
            if rng.random() < share:
                yield self.side(signal, session.session_id)

    def _start(self, originator: str, auth: str | None) -> SimulatedSession:
        """Choose the resource and the session; one run in ten resumes the session before, maybe on another branch."""
        person, rng = self.person, self.rng
        said, attribution = self.told()
        self._resource = self.options.wire.resource(
            [
                ("service.name", "codex_cli_rs" if originator == "codex-tui" else "codex_exec"),
                ("telemetry.sdk.name", "opentelemetry"),
                ("telemetry.sdk.language", "rust"),
                ("telemetry.sdk.version", "0.31.0"),
                ("service.version", records.VERSION),
                *said,
                *([("user.id", person.user)] if person.user else []),
            ]
        )
        resumed = self._last.session_id if self._last is not None and rng.random() < 0.1 else None
        user = person.user or (person.email if auth == "Chatgpt" else None)
        self._last = SimulatedSession("codex", "openai", resumed or uuid7(self.now, rng), user, attribution)
        return self._last

    def _conversation(self, session: SimulatedSession, originator: str, auth: str | None) -> Conversation:
        rng, wire = self.rng, self.options.wire
        model = MODELS.pick(rng)
        common = records.common(wire, self.person, session.session_id, model, originator, auth)
        trace = wire.identifier(rng.getrandbits(128).to_bytes(16, "big"))
        span = wire.identifier(rng.getrandbits(64).to_bytes(8, "big"))
        return Conversation(session, model, AgentContext(rng), (common, trace, span))

    def _respond(self, conversation: Conversation, transport: str, *, spoken: bool) -> None:
        """One billed response and all the records around it."""
        rng = self.rng
        self.advance(rng.random() * 0.5)
        if transport == "http":
            chance = rng.random()
            if chance < 0.02:
                self._noise(conversation, "retried")
            elif chance < 0.03:
                self._noise(conversation, "cut")
            self._noise(conversation, "http")
            if rng.random() < 0.9:
                self._noise(conversation, "reasoning")
            self._noise(conversation, "spoken" if spoken else "call")
            self._noise(conversation, "completed")
        else:
            self._noise(conversation, "websocket")
        self._report(conversation)
        if not spoken:
            self._noise(conversation, "called")

    def _subagent(self, parent: Conversation, originator: str, auth: str | None) -> None:
        """Let a subagent work: it has its own conversation in the same process, and therefore in the same bodies."""
        self._noise(parent, "spawned")
        whose = parent.session
        session = SimulatedSession("codex", "openai", uuid7(self.now, self.rng), whose.user, whose.attribution)
        child = self._conversation(session, originator, auth)
        self._noise(child, "start")
        for _ in range(2):
            if self.left:
                self._respond(child, "http", spoken=True)

    def _report(self, conversation: Conversation) -> None:
        """Send the record with the counts; one response in a hundred differs from the one before in its ns alone."""
        rng = self.rng
        fresh, cached, output, written = conversation.context.next()
        tier = TIERS.pick(rng) if conversation.model in TIERED else None
        counts = ClientCounts(fresh - written, cached, written, 0, output, int(output * rng.random() * 0.8))
        ttft, effort = 9 + int(rng.random() * 900), EFFORTS.pick(rng)
        self.now += self.gap
        self._token(conversation, counts, tier, ttft, effort)
        if self.left and rng.random() < 0.01:
            self.now += 137
            self._token(conversation, counts, tier, ttft, effort)

    def _token(
        self, conversation: Conversation, counts: ClientCounts, tier: str | None, ttft: int, effort: str | None
    ) -> None:
        optional = (("ttft_ms", ttft), ("service_tier", tier), ("model_reasoning_effort", effort))
        data = self._token_record(conversation, counts, [(key, value) for key, value in optional if value is not None])
        self.exporter.add_response(data, self.bill(conversation.session, conversation.model, counts, tier=tier))

    def _warm_up(self, conversation: Conversation) -> None:
        """Send the warm-up record of Codex over a websocket. It is not a request, and its counts are all 0."""
        self.now += self.gap
        self.exporter.add(self._token_record(conversation, ClientCounts(0, 0, 0, 0, 0, 0), []), 1)

    def _token_record(
        self, conversation: Conversation, counts: ClientCounts, optional: Sequence[tuple[str, str | int]]
    ) -> bytes:
        """Encode the record. Codex's input holds what was cached and written, its output the reasoning."""
        wire = self.options.wire
        given = counts.input_uncached + counts.cache_read + counts.cache_write_5m
        attribute = wire.attribute
        own = wire.between.join(
            [
                attribute("event.name", "codex.sse_event"),
                attribute("event.kind", "response.completed"),
                attribute("input_token_count", str(given)),
                attribute("output_token_count", str(counts.output)),
                attribute("cached_token_count", counts.cache_read),
                attribute("cache_write_token_count", counts.cache_write_5m),
                attribute("reasoning_token_count", counts.reasoning),
                attribute("tool_token_count", str(given + counts.output)),
                *[attribute(key, value) for key, value in optional],
            ]
        )
        return self.record(records.token_template(wire), conversation.shared, own)

    def _noise(self, conversation: Conversation, shape: str) -> None:
        variant = int(self.rng.random() * records.VARIANTS)
        self.emit(records.template(self.options.wire, shape, variant), conversation.shared)

    def extras(self) -> tuple[bytes, ...]:
        """Return a tool call's id."""
        return (b"call_%020x" % self.rng.getrandbits(80),)

    def _cut(self, *, last: bool = False) -> Request:
        """End the batch. When the client ends, its exporter logs that in a separate scope."""
        wire = self.options.wire
        ending: list[tuple[WireScope, Sequence[bytes]]] = []
        if last:
            ending.append((METRICS, [self.record(records.flush_template(wire), (b"",), b"")]))

        def body(runs: Sequence[bytes]) -> bytes:
            return wire.logs(self._resource, [*([(LOGS, runs)] if runs else []), *ending])

        return self.exporter.cut(self.now, body, last=last, extra=len(ending))

    def document(self, signal: Signal, session_id: str) -> tuple[bytes, int]:
        """Return metrics or traces."""
        return signals.body(signal, self.options.wire, session_id, self.now, self.used)
