"""What Codex is used with: models, and the tiers they are sold at."""

from __future__ import annotations

from tallystream.simulator.population import UNKNOWN_MODEL, Mix

MODELS: Mix[str] = Mix(
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
UNKNOWN_TIER = "scale"
"""Sold by contract: no price book knows what it costs."""
TIERS: Mix[str | None] = Mix([(None, 78), ("default", 6), ("priority", 9), ("flex", 6), (UNKNOWN_TIER, 1)])
