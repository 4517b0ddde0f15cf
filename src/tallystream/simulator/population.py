"""The people, teams, repositories and machines of the fleet."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from random import Random
from typing import Generic, TypeVar

T = TypeVar("T")


class Mix(Generic[T]):
    """Values with weights. `pick` costs one random number and is the same in every version of Python."""

    def __init__(self, weights: Sequence[tuple[T, float]]) -> None:
        self.values = [value for value, _ in weights]
        self._sums = list(accumulate(weight for _, weight in weights))

    def pick(self, rng: Random) -> T:
        """Return a value."""
        return self.values[bisect(self._sums, rng.random() * self._sums[-1])]


UNKNOWN_MODEL = "qwen3-coder-inhouse"
"""A self-hosted model, which is in no price book."""

TEAMS = ("payments", "search", "platform", "mobile", "data", "growth", "security", "billing")
REPOS = ("api", "web", "ledger", "ingest", "infra", "ios-app", "feature-store", "docs")
BRANCHES = ("main", "develop", "feat/retry-budget", "fix/rounding", "release/2026.11", "spike/100%25-typed|strict")
ENVS = ("dev", "prod", "ci")
NAMES = ("ada", "grace", "edsger", "barbara", "donald", "radia", "leslie", "frances", "ken", "margaret")


@dataclass(frozen=True)
class Person:
    """A person who runs agents, and the attributes of their machine. None: not reported."""

    user: str | None
    email: str
    account: str
    team: str | None
    repo: str | None
    cost_center: str | None
    env: str
    host: str

    @property
    def installation(self) -> str:
        """What a client that knows no name calls this person's machine: 64 hex digits."""
        return sha256(f"{self.email} {self.host}".encode()).hexdigest()

    @property
    def secrets(self) -> frozenset[str]:
        """All by which a client may name the person."""
        names = {self.user, self.email, self.account, self.installation, uuid_of(self.account)}
        return frozenset(name for name in names | {uuid_of(self.installation)} if name)


def uuid_of(name: str) -> str:
    """Return a UUID that stands for a name."""
    digits = sha256(name.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def person(number: int, rng: Random) -> Person:
    """Return the person of agent `number`: one person runs about three agents, one machine runs each."""
    who = number // 3
    name = f"{NAMES[who % len(NAMES)]}.{who:03d}"
    team = who % len(TEAMS)
    return Person(
        user=name if rng.random() < 0.9 else None,
        email=f"{name}@corp.example",
        account=f"acct-{who:04d}",
        team=TEAMS[team] if rng.random() < 0.93 else None,
        repo=f"corp/{REPOS[int(rng.random() * len(REPOS))]}" if rng.random() < 0.8 else None,
        cost_center=f"{4200 + team}" if rng.random() < 0.6 else None,
        env=ENVS[int(rng.random() * len(ENVS))],
        host=f"devbox-{number:04d}",
    )
