"""A seeded fleet of coding agents: the same config gives the same requests, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from operator import attrgetter
from random import Random

from tallystream.simulator.codex import CodexAgent
from tallystream.simulator.jsonwire import Json
from tallystream.simulator.model import CANARY, Request
from tallystream.simulator.options import AgentOptions, FleetConfig
from tallystream.simulator.population import person
from tallystream.simulator.protobuf import Protobuf
from tallystream.simulator.wire import Wire

_WIRES: dict[str, tuple[Wire, ...]] = {
    "protobuf": (Protobuf(),),
    "json": (Json(),),
    "mixed": (Protobuf(), Protobuf(), Protobuf(), Json()),
}


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
        wires = _WIRES[config.encoding]
        rng = Random(f"{config.seed}/{number}")  # noqa: S311 - repeatable on purpose
        options = AgentOptions(
            number=number,
            agents=config.agents,
            quota=quota + (number < more),
            start_ns=config.start_ns,
            span_ns=config.span_ns,
            wire=wires[number % len(wires)],
            gzip=config.gzip,
            duplicates=config.duplicates,
            late=config.late,
            late_max_ns=config.late_max_ns,
            metrics=config.metrics,
            traces=config.traces,
        )
        again = Random(f"{config.seed}/{number}/resend")  # noqa: S311
        held: Request | None = None
        for request in CodexAgent(person(number, rng), rng, options).requests():
            yield request
            if held is not None:
                yield held._replace(at_ns=request.at_ns, resent=True, copies=len(held.responses))
                held = None
            if request.signal == "logs" and again.random() < config.resend:
                held = request
        if held is not None:
            yield held._replace(resent=True, copies=len(held.responses))

    def secrets(self) -> frozenset[str]:
        """Return what must be found nowhere behind the gateway: content, and names unless the operator keeps them."""
        people = [
            person(number, Random(f"{self.config.seed}/{number}"))  # noqa: S311
            for number in range(self.config.agents)
        ]
        return frozenset(
            {CANARY, *(who.email for who in people), *(who.account for who in people)}
            | {who.user for who in people if who.user}
        )
