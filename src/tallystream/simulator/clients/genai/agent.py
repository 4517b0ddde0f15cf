"""A program that is counted by its GenAI spans: Copilot CLI, Pydantic AI behind a LiteLLM proxy, or LangChain.

What makes spans hard is played: runs repeat their calls' totals, a call is seen by two instrumentations or by an agent
and its gateway, tries fail without usage, spans arrive twice, and a run's own span comes after those below it, often in
a later request. A response is told as sent by the request with the span of the program itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

from tallystream.simulator.agent import Agent, AgentContext, ClientCounts, uuid4
from tallystream.simulator.clients.genai import spans
from tallystream.simulator.clients.genai.models import ANTHROPIC, OPENAI
from tallystream.simulator.clients.genai.spans import MS, Ids, PlayedCall, SpanGroup
from tallystream.simulator.model import OtlpTransport, Request, Response, Signal, SimulatedSession
from tallystream.simulator.options import HOUR_NS
from tallystream.simulator.population import Mix

FRAMEWORKS: Mix[str] = Mix([("copilot", 40), ("pydantic-ai", 35), ("langchain", 25)])
SCOPES = {
    "copilot": "github.copilot", "pydantic-ai": "pydantic-ai", "langchain": "openinference.instrumentation.langchain",
}  # fmt: skip
SDK, GATEWAY = "com.anthropic.sdk.python", "litellm"


class GenaiAgent(Agent):
    """Runs of one program after another, each of a framework."""

    BODY_RESPONSES = Mix([(1, 30), (2, 40), (4, 30)])
    TRANSPORT = OtlpTransport("OTel-OTLP-Exporter-Python/1.40.0", chunked=False)
    NAMES = MappingProxyType(
        {
            "host": "host.name", "team": "team", "repo": "vcs.repository.name", "branch": "vcs.ref.head.name",
            "cost_center": "cost_center", "env": "deployment.environment.name",
        }
    )  # fmt: skip
    _last: SimulatedSession | None = None
    _session: SimulatedSession
    _resource: tuple[tuple[str, str], ...] = ()
    _framework = ""
    _trace = ""
    _root = ""

    def process(self) -> Iterator[Request]:
        """Run the program once: calls in one or more requests, and the run's own span in the last one."""
        rng, options = self.rng, self.options
        self.exporter.shift_ns = 0
        if rng.random() < options.late:
            self.exporter.shift_ns = HOUR_NS + int(rng.random() * (options.late_max_ns - HOUR_NS))
        self._start()
        model = (ANTHROPIC if self._framework == "langchain" else OPENAI).pick(rng)
        context, calls = AgentContext(rng), list[PlayedCall]()
        again: list[tuple[Callable[[], Sequence[SpanGroup]], Response]] = []
        wanted = 1 + int(rng.random() ** 2 * 12)
        while self.left and wanted:
            groups, told, copies, beside = list[SpanGroup](), list[Response](), 0, list[SpanGroup]()
            for _ in range(min(self.left, wanted, self.BODY_RESPONSES.pick(rng))):
                wanted -= 1
                call = self._call(model, context)
                calls.append(call)
                told.append(self.bill(self._session, model, call.counts))
                made = self._spans(call)
                groups += made
                if self._framework == "pydantic-ai":
                    beside.append(self._gateway(call))
                if rng.random() < options.duplicates:
                    again.append((lambda made=made: made, told[-1]))  # type: ignore[misc]
            last = not (self.left and wanted)
            for groups_again, response in again if last or rng.random() < 0.5 else ():
                groups += groups_again()
                told.append(response)
                copies += 1
            if copies:
                again = []
            if last:
                groups.append(self._run(calls))
            if beside and rng.random() < 0.5:  # the proxy's exporter is as often the faster one
                yield self._request(beside, (), 0)
                beside = []
            yield self._request(groups, told, copies)
            if beside:
                yield self._request(beside, (), 0)

    def _start(self) -> None:
        """Choose the framework, the resource and the session; one run in ten goes on with the session before."""
        person, rng = self.person, self.rng
        said, attribution = self.told()
        self._framework = FRAMEWORKS.pick(rng)
        last = self._last
        resumed = last is not None and last.client == self._framework and rng.random() < 0.1
        session_id = last.session_id if resumed and last is not None else uuid4(rng)
        provider = "anthropic" if self._framework == "langchain" else "openai"
        self._session = self._last = SimulatedSession(self._framework, provider, session_id, person.user, attribution)
        user = [("user.id", person.user)] if person.user else []
        service = [("service.name", "my-agent"), ("service.instance.id", uuid4(rng))]
        self._resource = (*service, *said, *user)
        self._trace, self._root = self._id(128), self._id(64)

    def _call(self, model: str, context: AgentContext) -> PlayedCall:
        """Let the next call happen; its end is the event's time."""
        rng = self.rng
        self.advance(rng.random() * 0.5)
        self.now += self.gap
        fresh, cached, output, written = context.next()
        if self._framework != "langchain":
            written = 0  # OpenAI's caching is not billed apart
        reasoning = 0 if self._framework == "langchain" else int(output * rng.random() * 0.7)
        counts = ClientCounts(fresh - written, cached, written, 0, output, reasoning)
        took = (200 + int(rng.random() * 9000)) * MS
        unique = "msg_" if self._framework == "langchain" else "chatcmpl-"
        return PlayedCall(model, f"{unique}{self._id(96)}", counts, self.at_ns - took, self.at_ns)

    def _spans(self, call: PlayedCall) -> list[SpanGroup]:
        """Return what the program itself tells of a call."""
        session = self._session.session_id
        ids = Ids(self._trace, self._id(64), self._root)
        if self._framework == "langchain":
            return [
                SpanGroup(self._resource, SDK, [spans.sdk(call, Ids(self._id(128), self._id(64)))]),
                SpanGroup(self._resource, SCOPES["langchain"], [spans.openinference(call, ids, session)]),
            ]
        provider, written = (
            ("github", "gen_ai.usage.cache_write.input_tokens")
            if self._framework == "copilot"
            else ("openai", "gen_ai.usage.cache_creation.input_tokens")
        )
        found: list[dict[str, Any]] = [spans.chat(call, ids, session, "helper", provider=provider, written=written)]
        if self._framework == "copilot" and self.rng.random() < 0.05:
            failed = Ids(self._trace, self._id(64), self._root)
            found.insert(0, spans.failed_chat(call.model, failed, session, call.start_ns - 2 * MS))
        return [SpanGroup(self._resource, SCOPES[self._framework], found)]

    def _gateway(self, call: PlayedCall) -> SpanGroup:
        resource = (("service.name", "litellm"), ("service.instance.id", f"proxy-{self.options.number % 3}"))
        return SpanGroup(resource, GATEWAY, [spans.gateway(call, Ids(self._id(128), self._id(64)))])

    def _run(self, calls: Sequence[PlayedCall]) -> SpanGroup:
        """Return the run's own span."""
        ids, session = Ids(self._trace, self._root), self._session.session_id
        if self._framework == "langchain":
            whole = spans.chain(ids, session, calls[0].start_ns - MS, calls[-1].end_ns + MS)
        else:
            prefix = "gen_ai.usage" if self._framework == "copilot" else "gen_ai.aggregated_usage"
            whole = spans.run(calls, ids, session, "helper", prefix=prefix)
        return SpanGroup(self._resource, SCOPES[self._framework], [whole])

    def _request(self, groups: Sequence[SpanGroup], responses: Sequence[Response], copies: int) -> Request:
        options = self.options
        document, records = spans.body(groups)
        return Request(
            options.number, self.now, "traces", options.wire.document(document), options.wire.content_type,
            self.TRANSPORT, options.gzip, records, tuple(responses), copies, self.exporter.shift_ns > 0,
        )  # fmt: skip

    def document(self, signal: Signal, session_id: str) -> tuple[bytes, int]:  # noqa: ARG002 - a protocol's
        """Return an empty request: spans are what is counted, and there is no other signal."""
        return self.options.wire.document({"resourceSpans": []}), 0

    def _id(self, bits: int) -> str:
        """Return an id in hex that is not 0."""
        return f"{self.rng.getrandbits(bits) | 1:0{bits // 4}x}"
