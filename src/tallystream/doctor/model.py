"""Input and output of the checks."""

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
    """The deployment to check. `run` is the run.json of `up`, or None if it does not run here."""

    kafka: KafkaSettings
    topics: Topics
    lateness: timedelta
    data_dir: Path
    run: Run | None = None
    gateways: tuple[str, ...] = ()
    """Ops URLs of gateways on other machines."""
    watch: float = 3.0
    """Seconds between two measurements of what changes."""
    clock: Clock = field(default_factory=SystemClock)

    @property
    def gateway_urls(self) -> dict[str, str]:
        """Return name and ops URL of each known gateway."""
        found = {url: url.rstrip("/") for url in self.gateways}
        for one in self.run.components if self.run else ():
            if one.ops_url is not None and one.name.partition("-")[0] == "gateway":
                found[one.name] = one.ops_url
        return found


@dataclass(frozen=True)
class Finding:
    """A problem: `what` describes it, `step` says what to do, `check` names its kind for programs."""

    check: str
    what: str
    step: str


@dataclass(frozen=True)
class Section:
    """The state of a part of the deployment: lines of a name and a text."""

    title: str
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Check:
    """A check. `look` returns the problems found now, and does not raise for them; `describe` returns a section."""

    name: str
    look: Callable[[DoctorContext], Awaitable[list[Finding]]]
    needs_kafka: bool = False
    describe: Callable[[DoctorContext], Awaitable[Section | None]] | None = None


@dataclass
class Examination:
    """All findings, and the checks that were made."""

    findings: list[Finding] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
