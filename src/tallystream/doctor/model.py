"""What checks take and give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tallystream.schemas.run import Run
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import Clock, SystemClock


@dataclass(frozen=True)
class DoctorContext:
    """The deployment that is looked at; `run` is what `up` runs here, None when it does not."""

    kafka: KafkaSettings
    topics: Topics
    lateness: timedelta
    data_dir: Path
    run: Run | None = None
    gateways: tuple[str, ...] = ()
    """Ops URLs of gateways that run elsewhere."""
    watch: float = 3.0
    """Seconds between two looks at what moves."""
    clock: Clock = field(default_factory=SystemClock)

    @property
    def gateway_urls(self) -> dict[str, str]:
        """Return name and ops URL of each gateway that is known."""
        found = {url: url.rstrip("/") for url in self.gateways}
        for one in self.run.components if self.run else ():
            if one.ops_url is not None and one.name.partition("-")[0] == "gateway":
                found[one.name] = one.ops_url
        return found


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: `what` for people, `step` what to do next. `check` names its kind, for programs."""

    check: str
    what: str
    step: str


@dataclass(frozen=True)
class Check:
    """`look` finds what is wrong now; it raises nothing for what it is there to find."""

    name: str
    look: Callable[[DoctorContext], Awaitable[list[Finding]]]
    needs_kafka: bool = False


@dataclass
class Examination:
    """All findings, and which checks were made to get them."""

    findings: list[Finding] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
