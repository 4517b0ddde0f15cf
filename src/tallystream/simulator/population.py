"""Who works in the fleet: people, teams, repositories, machines, and which models at which service tier they use."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
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
"""Served by a company itself: no price book knows it."""
UNKNOWN_TIER = "scale"
"""Sold by contract: no price book knows what it costs."""

CODEX_MODELS: Mix[str] = Mix(
    [
        ("gpt-5.1-codex", 28),
        ("gpt-5-codex", 20),
        ("gpt-5.4", 14),
        ("gpt-5.1-codex-max", 9),
        ("gpt-6.1-sol", 8),
        ("gpt-5.1-codex-mini", 7),
        ("gpt-5", 5),
        ("o3", 4),
        ("codex-mini-latest", 2),
        (UNKNOWN_MODEL, 3),
    ]
)
TIERED = frozenset({"gpt-5.1-codex", "gpt-5-codex", "gpt-5.4", "gpt-5.1-codex-max", "gpt-6.1-sol", "gpt-5", "o3"})
"""Models that are sold at these tiers."""
TIERS: Mix[str | None] = Mix([(None, 78), ("default", 6), ("priority", 9), ("flex", 6), (UNKNOWN_TIER, 1)])

TEAMS = ("payments", "search", "platform", "mobile", "data", "growth", "security", "billing")
REPOS = ("api", "web", "ledger", "ingest", "infra", "ios-app", "feature-store", "docs")
BRANCHES = ("main", "develop", "feat/retry-budget", "fix/rounding", "release/2026.11", "spike/100%25-typed|strict")
ENVS = ("dev", "prod", "ci")
NAMES = ("ada", "grace", "edsger", "barbara", "donald", "radia", "leslie", "frances", "ken", "margaret")


@dataclass(frozen=True)
class Person:
    """Someone who runs agents, and what their machine says about itself. None: it does not say."""

    user: str | None
    email: str
    account: str
    team: str | None
    repo: str | None
    cost_center: str | None
    env: str
    host: str


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
