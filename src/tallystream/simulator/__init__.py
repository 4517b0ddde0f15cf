"""A fleet of coding agents for demos, load tests, chaos tests and your own sizing, and the truth about what it cost.

    config = FleetConfig(agents=200, requests=20_000, seed=7, start_ns=...)
    truth = Truth(config)
    report = await run(config, target(base_url), truth=truth)
    assert compare(truth, rows) == []

`Fleet(config)` alone yields the requests without sending them. Nothing here uses the gateway's normalisers or the
worker's prices: the truth is an oracle for both.
"""

from tallystream.simulator.compare import Difference, compare
from tallystream.simulator.driver import Load, Report, run
from tallystream.simulator.fleet import Fleet
from tallystream.simulator.model import CANARY, Request, Response, SimulatedSession
from tallystream.simulator.options import FleetConfig
from tallystream.simulator.target import SimulationTarget, target
from tallystream.simulator.truth import Key, Truth

__all__ = [
    "CANARY",
    "Difference",
    "Fleet",
    "FleetConfig",
    "Key",
    "Load",
    "Report",
    "Request",
    "Response",
    "SimulatedSession",
    "SimulationTarget",
    "Truth",
    "compare",
    "run",
    "target",
]
