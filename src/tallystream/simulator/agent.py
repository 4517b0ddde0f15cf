"""Base of the agents of all clients: a person, a quota, a clock, and the encoding of records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import ClassVar

from tallystream.simulator.exporter import TelemetryExporter, iso
from tallystream.simulator.model import OtlpTransport, Request, Response, Signal, SimulatedSession
from tallystream.simulator.options import AgentOptions
from tallystream.simulator.population import BRANCHES, Mix, Person
from tallystream.simulator.wire import Template


class ClientCounts:
    """Disjoint token counts of one response, `reasoning` being a part of `output`."""

    __slots__ = ("cache_read", "cache_write_1h", "cache_write_5m", "input_uncached", "output", "reasoning", "tool")

    def __init__(
        self, input_uncached: int, cache_read: int, cache_write_5m: int, cache_write_1h: int, output: int,
        reasoning: int, tool: int = 0,
    ) -> None:  # fmt: skip
        self.input_uncached = input_uncached
        self.cache_read = cache_read
        self.cache_write_5m = cache_write_5m
        self.cache_write_1h = cache_write_1h
        self.output = output
        self.reasoning = reasoning
        self.tool = tool


class RunUsage:
    """What one run of the client used in a session: the sums that its metrics and spans tell once more."""

    __slots__ = ("cached", "fresh", "output", "reasoning", "tool", "written")

    def __init__(self) -> None:
        self.fresh = self.cached = self.written = self.output = self.reasoning = self.tool = 0

    def add(self, counts: ClientCounts) -> None:
        """Add a response."""
        self.fresh += counts.input_uncached
        self.cached += counts.cache_read
        self.written += counts.cache_write_5m + counts.cache_write_1h
        self.output += counts.output
        self.reasoning += counts.reasoning
        self.tool += counts.tool

    @classmethod
    def of(cls, parts: Iterable[RunUsage]) -> RunUsage:
        """Return the sum of several."""
        whole = cls()
        for part in parts:
            for name in cls.__slots__:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
        return whole

    @property
    def input(self) -> int:
        """All input tokens."""
        return self.fresh + self.cached + self.written


class AgentContext:
    """A conversation's growing context: what the next request carries as its input, most of it cached."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._tokens = 1500 + int(rng.random() * 9000)

    def next(self) -> tuple[int, int, int, int]:
        """Return fresh, cached and output tokens of the next response, and how many fresh ones are cached now."""
        rng = self._rng
        fresh = int(rng.random() ** 3 * 6000) + 40
        total = min(self._tokens + fresh, 390_000)
        cached = min(self._tokens // 128 * 128, total) if rng.random() < 0.85 else 0
        written = int((total - cached) * rng.random()) if rng.random() < 0.15 else 0
        output = int(rng.random() ** 2 * 3000) + 5
        # Now and then the client compacts: the context starts over with a summary.
        self._tokens = total + output if rng.random() > 0.02 else total // 8
        return total - cached, cached, output, written


class Agent(ABC):
    """Sends exactly `options.quota` billed responses, spread over `options.span_ns` from `options.start_ns`."""

    BODY_RESPONSES: ClassVar[Mix[int]]
    """Responses a body reports before it is cut."""
    TRANSPORT: ClassVar[OtlpTransport]
    RESOLUTION_NS: ClassVar[int] = 1
    """Of the client's clock."""
    LAG_NS: ClassVar[int] = 0
    """By how much `event.timestamp` is before the record's time."""
    NAMES: ClassVar[Mapping[str, str]]
    """What the resource calls each dimension of attribution, `user` aside."""

    def __init__(self, person: Person, rng: Random, options: AgentOptions) -> None:
        self.person = person
        self.rng = rng
        self.options = options
        self.left = options.quota
        self.now = options.start_ns
        self._slot = options.span_ns // max(1, options.quota)
        self.gap = max(1000, min(9_000_000, self._slot // 60))
        """Between two records."""
        self.used: dict[str, RunUsage] = {}
        """By session, since the client was started."""
        self.exporter = TelemetryExporter(rng, options, self.BODY_RESPONSES, self.TRANSPORT)

    def requests(self) -> Iterator[Request]:
        """Yield the agent's requests in the order of their `at_ns`."""
        while self.left:
            self.advance(0.0)
            self.used = {}
            yield from self.process()

    @abstractmethod
    def process(self) -> Iterator[Request]:
        """Run the client once: yield its requests, the last of them with everything that was held back."""

    @abstractmethod
    def document(self, signal: Signal, session_id: str) -> tuple[bytes, int]:
        """Return a body of metrics or traces as of now, and how many points or spans it holds."""

    def mark(self) -> bytes:
        """Return the encoded attributes that number the next record."""
        return b""

    def extras(self) -> Sequence[bytes]:
        """Return what fills the holes of a shape from `EXTRA` on."""
        return ()

    def told(self) -> tuple[list[tuple[str, str]], tuple[tuple[str, str], ...]]:
        """Choose a branch; return what the resource says of the person's work, and which attribution that makes."""
        person, rng = self.person, self.rng
        branch = BRANCHES[int(rng.random() * len(BRANCHES))] if person.repo and rng.random() < 0.7 else None
        known = {
            "team": person.team, "repo": person.repo, "branch": branch, "cost_center": person.cost_center,
            "env": person.env, "host": person.host,
        }  # fmt: skip
        said = {name: value for name, value in known.items() if name in self.NAMES and value is not None}
        return [(self.NAMES[name], value) for name, value in said.items()], tuple(sorted(said.items()))

    @property
    def at_ns(self) -> int:
        """Return what the client's clock says; in a late batch it is hours behind the agent's present."""
        return (self.now - self.exporter.shift_ns) // self.RESOLUTION_NS * self.RESOLUTION_NS

    def advance(self, jitter: float) -> None:
        """Go on to when the next response is due; `jitter` is a share of the time between two."""
        done = self.options.quota - self.left
        self.now = max(self.now, self.options.start_ns + int((done + jitter) * self._slot))

    def emit(self, template: Template, shared: Sequence[bytes]) -> None:
        """Put a run of noise records into the batch. `shared` are the session's attributes and the ids."""
        wire = self.options.wire
        time, head, grain, lag, mark = wire.time, wire.head, self.RESOLUTION_NS, self.LAG_NS, self.mark
        now, gap = self.now - self.exporter.shift_ns, self.gap + int(self.rng.random() * 1e6)
        common = len(shared[0])
        values: list[bytes] = []
        for size in template.sizes:
            now += gap
            at_ns, number = now // grain * grain, mark()
            values += (time(at_ns), iso(at_ns - lag), head(size + common + len(number)), number)
        values += (*shared, *self.extras())
        self.now = now + self.exporter.shift_ns
        self.exporter.add(template.render(values), len(template.sizes))

    def record(self, template: Template, shared: Sequence[bytes], *extra: bytes) -> bytes:
        """Encode one record as of now; the first of `extra` are attributes of any size."""
        wire, at_ns, number = self.options.wire, self.at_ns, self.mark()
        head = wire.head(template.sizes[0] + len(shared[0]) + len(number) + len(extra[0]))
        return template.render((wire.time(at_ns), iso(at_ns - self.LAG_NS), head, number, *shared, *extra))

    def bill(
        self, session: SimulatedSession, model: str, counts: ClientCounts, *,
        tier: str | None = None, speed: str | None = None, reported_pico: int | None = None,
    ) -> Response:  # fmt: skip
        """Return the next of the agent's billed responses, as of now."""
        self.left -= 1
        self.used.setdefault(session.session_id, RunUsage()).add(counts)
        number = self.options.number + (self.options.quota - self.left - 1) * self.options.agents
        return Response(
            number, session, model, tier, self.at_ns, counts.input_uncached, counts.cache_read, counts.cache_write_5m,
            counts.cache_write_1h, counts.output, counts.reasoning, counts.tool, speed, reported_pico,
        )  # fmt: skip

    def side(self, signal: Signal, session_id: str) -> Request:
        """Return a body of metrics or traces: it repeats usage of the logs, and must add nothing to it."""
        options = self.options
        body, records = self.document(signal, session_id)
        return Request(
            options.number, self.now, signal, body, options.wire.content_type, self.TRANSPORT, options.gzip, records, ()
        )


def uuid7(ns: int, rng: Random) -> str:
    """Return a UUIDv7 of that time."""
    bits = (ns // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | 7 << 76 | rng.getrandbits(12) << 64
    digits = f"{bits | 2 << 62 | rng.getrandbits(62):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid4(rng: Random) -> str:
    """Return a random UUID."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{8 | int(digits[16], 16) & 3:x}{digits[17:20]}-{digits[20:]}"
