"""What agents of all clients have in common: a person, a quota, a clock of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from random import Random

from tallystream.simulator.exporter import Exporter
from tallystream.simulator.model import Request, Response, Session
from tallystream.simulator.options import AgentOptions
from tallystream.simulator.population import Mix, Person


class Counts:
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


class Context:
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

    BODY_RESPONSES: Mix[int]
    """Responses a body reports before it is cut."""

    def __init__(self, person: Person, rng: Random, options: AgentOptions) -> None:
        self.person = person
        self.rng = rng
        self.options = options
        self.left = options.quota
        self.now = options.start_ns
        self._slot = options.span_ns // max(1, options.quota)
        self.gap = max(1000, min(9_000_000, self._slot // 60))
        """Between two records."""
        self.exporter = Exporter(rng, options, self.BODY_RESPONSES)

    def requests(self) -> Iterator[Request]:
        """Yield the agent's requests in the order of their `at_ns`."""
        while self.left:
            self.advance(0.0)
            yield from self.process()

    @abstractmethod
    def process(self) -> Iterator[Request]:
        """Run the client once: yield its requests, the last of them with everything that was held back."""

    def advance(self, jitter: float) -> None:
        """Go on to when the next response is due; `jitter` is a share of the time between two."""
        done = self.options.quota - self.left
        self.now = max(self.now, self.options.start_ns + int((done + jitter) * self._slot))

    def bill(self, session: Session, model: str, tier: str | None, at_ns: int, counts: Counts) -> Response:
        """Return the next of the agent's billed responses."""
        self.left -= 1
        number = self.options.number + (self.options.quota - self.left - 1) * self.options.agents
        return Response(
            number, session, model, tier, at_ns, counts.input_uncached, counts.cache_read, counts.cache_write_5m,
            counts.cache_write_1h, counts.output, counts.reasoning, counts.tool,
        )  # fmt: skip


def uuid7(ns: int, rng: Random) -> str:
    """Return a UUIDv7 of that time."""
    bits = (ns // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | 7 << 76 | rng.getrandbits(12) << 64
    digits = f"{bits | 2 << 62 | rng.getrandbits(62):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
