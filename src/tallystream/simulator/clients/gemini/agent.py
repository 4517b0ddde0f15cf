"""A Gemini CLI agent: runs of the client one after another, in a script or in the terminal.

Its clock has milliseconds and requests have no id, so two concurrent calls may differ only in their duration. Every
response is reported twice, in the client's own format and in OpenTelemetry's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType

from tallystream.simulator.agent import Agent, AgentContext, ClientCounts, uuid4
from tallystream.simulator.clients.gemini import records, signals
from tallystream.simulator.clients.gemini.models import MODELS, ROUTER
from tallystream.simulator.clients.gemini.records import GeminiRecordKind
from tallystream.simulator.model import OtlpTransport, Request, Signal, SimulatedSession
from tallystream.simulator.population import Mix

AUTHS: Mix[str] = Mix([("oauth-personal", 45), ("gemini-api-key", 35), ("vertex-ai", 20)])


class GeminiAgent(Agent):
    """Gemini CLI 0.61, `gemini -p` and sessions in the terminal."""

    BODY_RESPONSES = Mix([(1, 44), (2, 32), (3, 24)])
    TRANSPORT = OtlpTransport("OTel-OTLP-Exporter-JavaScript/0.218.0", chunked=True)
    RESOLUTION_NS = LAG_NS = 1_000_000
    NAMES = MappingProxyType(
        {
            "host": "host.name", "team": "team.name", "repo": "repository", "branch": "git.branch",
            "cost_center": "cost_center", "env": "environment",
        }
    )  # fmt: skip
    _last: SimulatedSession | None = None
    _session: SimulatedSession
    _resource = b""
    _shared: tuple[bytes, ...] = ()
    _prompt = ""

    def process(self) -> Iterator[Request]:
        """Run `gemini -p` once, or a session in the terminal."""
        rng = self.rng
        kind = GeminiRecordKind(MODELS.pick(rng), rng.random() < 0.25, rng.random() < 0.4)
        self._start(kind)
        context = AgentContext(rng)
        self._noise("start", kind)
        for turn in range(1 if kind.headless else 1 + int(rng.random() ** 2 * 9)):
            if not self.left:
                break
            session_id = self._session.session_id
            self._prompt = session_id if kind.headless else f"{session_id}########{turn}"
            self._noise("prompt", kind)
            if not kind.headless and rng.random() < 0.25 and self.left > 1:
                self._respond(replace(kind, model=ROUTER, role="utility_router"), AgentContext(rng), spoken=True)
            yield from self._turn(kind, context)
            if not kind.headless and rng.random() < 0.08:
                # The quota of the better model is used up, or the user chose another.
                kind = replace(kind, model=MODELS.pick(rng))
        self._noise("ended", kind)
        if rng.random() < self.options.traces:
            yield self.side("traces", self._session.session_id)
        yield self._cut(last=True)
        if rng.random() < self.options.metrics:
            yield self.side("metrics", self._session.session_id)

    def _start(self, kind: GeminiRecordKind) -> None:
        """Choose the resource and the session; one run in twelve resumes the session before."""
        person, rng, wire = self.person, self.rng, self.options.wire
        told, attribution = self.told()
        told.sort(key=lambda pair: pair[0] != "host.name")
        auth = AUTHS.pick(rng)
        user = person.user
        if user:
            told = [*told, ("enduser.id", user)]
        elif auth == "oauth-personal":
            user = person.email
        resumed = self._last.session_id if self._last is not None and rng.random() < 0.08 else None
        self._session = self._last = SimulatedSession("gemini", "google", resumed or uuid4(rng), user, attribution)
        session_id, pid = self._session.session_id, 1000 + int(rng.random() * 60_000)
        self._resource = records.resource(wire, told, session_id, pid, headless=kind.headless)
        self._shared = (records.common(wire, person, session_id, auth, headless=kind.headless), b"", b"")

    def _turn(self, kind: GeminiRecordKind, context: AgentContext) -> Iterator[Request]:
        """Answer a prompt, step by step."""
        rng = self.rng
        steps = 1 + int(rng.random() ** 2 * 8)
        for step in range(steps):
            if not self.left:
                return
            self._respond(kind, context, spoken=step == steps - 1)
            if self.exporter.full:
                yield self._cut()

    def _respond(self, kind: GeminiRecordKind, context: AgentContext, *, spoken: bool) -> None:
        """One billed response and the records around it."""
        rng, wire = self.rng, self.options.wire
        self.advance(rng.random() * 0.5)
        trace = wire.identifier(rng.getrandbits(128).to_bytes(16, "big"))
        self._shared = (self._shared[0], trace, wire.identifier(rng.getrandbits(64).to_bytes(8, "big")))
        if rng.random() < 0.03:
            self._noise("request", kind)
            self._noise("failed", kind)
        self._noise("request", kind)
        self._report(kind, context)
        if not spoken:
            self._noise("called", kind)

    def _report(self, kind: GeminiRecordKind, context: AgentContext) -> None:
        """Send the record with the counts; one in a hundred has a twin, of a call beside it that took 1 ms longer."""
        rng = self.rng
        fresh, cached, output, _ = context.next()
        thoughts = int(output * rng.random() * 0.7)
        tool = int(rng.random() * 4000) if rng.random() < 0.12 else 0
        counts = ClientCounts(fresh, cached, 0, 0, output, thoughts, tool)
        duration = 90 + int(rng.random() * 9000)
        self.now += self.gap
        self._token(kind, counts, duration)
        if self.left and rng.random() < 0.01:
            self._token(kind, counts, duration + 1)

    def _token(self, kind: GeminiRecordKind, counts: ClientCounts, duration: int) -> None:
        """Send both records. Gemini's input holds what was cached, its output not what was thought."""
        wire, shared = self.options.wire, self._shared
        given, said = counts.input_uncached + counts.cache_read, counts.output - counts.reasoning
        attribute = wire.attribute
        own = [
            attribute("model", kind.model),
            attribute("duration_ms", duration),
            attribute("input_token_count", given),
            attribute("output_token_count", said),
            attribute("cached_content_token_count", counts.cache_read),
            attribute("thoughts_token_count", counts.reasoning),
            attribute("tool_token_count", counts.tool),
            attribute("total_token_count", given + counts.output + counts.tool),
            attribute("prompt_id", self._prompt),
            attribute("status_code", 200),
            attribute("finish_reasons", ("stop",)),
            attribute("role", kind.role),
            attribute("http.status_code", 200),
        ]
        if kind.shown:
            own.append(records.answer(wire))
        told = f"from {kind.model}. Status: 200. Duration: {duration}ms.".encode()
        data = self.record(records.token_template(wire), shared, wire.between.join(own), b"API response " + told)
        self.exporter.add_response(data, self.bill(self._session, kind.model, counts))
        again = (attribute("gen_ai.usage.input_tokens", given), attribute("gen_ai.usage.output_tokens", said))
        details = self.record(
            records.details_template(wire, kind), shared, wire.between.join(again),
            b"GenAI operation details " + told, b"%022x" % self.rng.getrandbits(88),
        )  # fmt: skip
        self.exporter.add(details, 1)

    def _noise(self, shape: str, kind: GeminiRecordKind) -> None:
        variant = int(self.rng.random() * records.VARIANTS)
        self.emit(records.template(self.options.wire, shape, variant, kind), self._shared)

    def extras(self) -> tuple[bytes, ...]:
        """Return the prompt's id."""
        return (self._prompt.encode(),)

    def _cut(self, *, last: bool = False) -> Request:
        def body(runs: Sequence[bytes]) -> bytes:
            return self.options.wire.logs(self._resource, [(records.LOGS, runs)])

        return self.exporter.cut(self.now, body, last=last)

    def document(self, signal: Signal, session_id: str) -> tuple[bytes, int]:
        """Return metrics or traces."""
        return signals.body(signal, self.options.wire, session_id, self.now, self.used)
