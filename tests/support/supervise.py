"""A supervisor of stand-ins: `python -m tests.support.supervise DATA_DIR` writes its events to DATA_DIR/events."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.support.waiting import PATIENCE

from tallystream.schemas.errors import TallystreamError, UnfitError
from tallystream.supervisor.runfile import SupervisorLock
from tallystream.supervisor.specs import OPS_PORT, ComponentSpec, Plan, Timing
from tallystream.supervisor.supervisor import Supervisor

# `stop` exceeds every test's timeout, so a test that waits for it fails.
TIMING = Timing(
    poll=0.02,
    health=0.05,
    answer=1.0,
    red=1.0,
    start=PATIENCE,
    stop=600.0,
    deaf=1.0,
    backoff_first=0.05,
    backoff_most=0.2,
)


def spec(name: str, state: Path, stop_rank: int, *, needs_kafka: bool = True) -> ComponentSpec:
    argv = (sys.executable, "-m", "tests.support.standin", name, str(state), OPS_PORT)
    return ComponentSpec(name, argv, stop_rank, needs_kafka=needs_kafka, is_kafka=name == "kafka")


def main() -> None:
    state = Path(sys.argv[1])
    specs = (
        spec("kafka", state, 9, needs_kafka=False),
        spec("gateway", state, 0, needs_kafka=False),
        spec("worker", state, 5),
    )
    served = (state / "served.before").exists()
    plan = Plan(state, "http://127.0.0.1:1", "127.0.0.1:2", specs, TIMING, served_before=served)

    def event(component: str, text: str) -> None:
        with (state / "events").open("a") as file:
            file.write(f"supervisor {component} {text}\n")

    async def prepare() -> None:
        if (state / "topics.unfit").exists():
            raise UnfitError("the topics do not fit", "mend them")
        event("kafka", "prepared")

    supervisor = Supervisor(plan, prepare=prepare, say=event, started=lambda run: event("up", "started"))
    try:
        with SupervisorLock(state):
            asyncio.run(supervisor.run())
    except TallystreamError as exc:
        sys.stderr.write(f"{exc.code}|{exc.message}|{exc.hint}")
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
