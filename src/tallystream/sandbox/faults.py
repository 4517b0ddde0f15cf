"""Injected faults: errors of a remote API, for the requests and as often as configured."""

from __future__ import annotations

import random
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tallystream.schemas import exact

Kind = Literal["status", "latency", "hang", "reset", "truncate", "half"]


class Fault(BaseModel):
    """A fault for requests whose path (including `/openai/v1` or `/port/v1`) matches.

    status    answered with `status` (and Retry-After when `retry_after` is set), the API untouched
    latency   answered `seconds` late
    hang      never answered: the connection stays open for `seconds`
    reset     the connection is closed without an answer
    truncate  the answer breaks off in the middle of the body: fewer bytes than its Content-Length
    half      the answer is whole HTTP but half the JSON
    """

    model_config = ConfigDict(extra="forbid")

    match: str = "."
    """Regular expression, searched for in the path and query."""
    method: str | None = None
    kind: Kind = "status"
    status: int = Field(default=503, ge=400, le=599)
    retry_after: int | None = None
    seconds: float = Field(default=0.0, ge=0, le=600)
    skip: int = Field(default=0, ge=0)
    """How many matching requests pass before the fault applies."""
    times: int | None = Field(default=None, ge=1)
    """How many requests the fault applies to; null: all that follow."""
    probability: float = Field(default=1.0, ge=0, le=1)
    """Probability that the fault applies to a matching request, drawn from the sandbox's seed."""
    after: bool = False
    """Let the API process the request first, so that the client cannot know the outcome. Not for latency."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            re.compile(self.match)
        except re.error as exc:
            raise ValueError(f"match is not a valid regular expression: {exc}") from None
        return self


class Faults:
    """The active faults in the order of their creation. The first one that matches applies."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._faults: list[tuple[Fault, dict[str, int]]] = []

    def add(self, fault: Fault) -> None:
        """Order a fault."""
        self._faults.append((fault, {"seen": 0, "hit": 0}))

    def clear(self) -> None:
        """Cancel all."""
        self._faults.clear()

    def pick(self, method: str, path: str) -> Fault | None:
        """Return the fault for a request, or None."""
        for fault, counts in self._faults:
            if fault.method not in (None, method) or not re.search(fault.match, path):
                continue
            if fault.times is not None and counts["hit"] >= fault.times:
                continue
            counts["seen"] += 1
            if counts["seen"] <= fault.skip or self._random.random() >= fault.probability:
                continue
            counts["hit"] += 1
            return fault
        return None

    def state(self) -> list[dict[str, Any]]:
        """Return each fault and how often it was applied."""
        return [exact.loads(fault.model_dump_json()) | counts for fault, counts in self._faults]
