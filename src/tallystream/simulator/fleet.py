"""A seeded fleet of coding agents: the same config gives the same requests, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from operator import attrgetter
from random import Random

from tallystream.simulator.clients import CLIENTS
from tallystream.simulator.model import CANARY, ClientName, FleetClient, Request
from tallystream.simulator.options import AgentOptions, FleetConfig
from tallystream.simulator.population import person

MIXED: tuple[ClientName, ...] = (
    "codex", "claude", "codex", "gemini", "codex", "claude", "codex", "claude", "codex", "gemini",
)  # fmt: skip
"""Of ten agents of a mixed fleet five are Codex, three Claude Code and two Gemini CLI."""


class Fleet:
    """All agents of a config. Iterating it again starts over and gives the same again."""

    def __init__(self, config: FleetConfig) -> None:
        self.config = config

    def __iter__(self) -> Iterator[Request]:
        """Yield every request of every agent in the order in which the fleet sends them."""
        return merge(*map(self.agent, range(self.config.agents)), key=attrgetter("at_ns"))

    def agent(self, number: int) -> Iterator[Request]:
        """Yield the requests of one agent, resent ones right after the next of its own."""
        config = self.config
        quota, more = divmod(config.requests, config.agents)
        name, rank = self.client(number)
        client = CLIENTS[name]
        rng = Random(f"{config.seed}/{number}")
        options = AgentOptions(
            number=number,
            agents=config.agents,
            quota=quota + (number < more),
            start_ns=config.start_ns,
            span_ns=config.span_ns,
            wire=client.wire(config.encoding, rank),
            gzip=config.gzip,
            duplicates=config.duplicates,
            late=config.late,
            late_max_ns=config.late_max_ns,
            metrics=config.metrics,
            traces=config.traces,
        )
        again = Random(f"{config.seed}/{number}/resend")
        held: Request | None = None
        for request in client.agent(person(number, rng), rng, options).requests():
            yield request
            if held is not None:
                yield held._replace(at_ns=request.at_ns, resent=True, copies=len(held.responses))
                held = None
            if request.signal == client.costs and again.random() < config.resend:
                held = request
        if held is not None:
            yield held._replace(resent=True, copies=len(held.responses))

    def client(self, number: int) -> tuple[FleetClient, int]:
        """Return which client agent `number` is, and how many of that client come before it."""
        if self.config.client != "mixed":
            return self.config.client, number
        rounds, place = divmod(number, len(MIXED))
        name = MIXED[place]
        return name, rounds * MIXED.count(name) + MIXED[:place].count(name)

    def secrets(self) -> frozenset[str]:
        """Return texts that must not appear behind the gateway: content, and names unless the operator keeps them."""
        people = [person(number, Random(f"{self.config.seed}/{number}")) for number in range(self.config.agents)]
        return frozenset({CANARY}).union(*(who.secrets for who in people))
