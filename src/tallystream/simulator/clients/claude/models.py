"""What Claude Code is used with: models, their speeds, and what the client itself believes they cost."""

from __future__ import annotations

from decimal import Decimal

from tallystream.simulator.agent import ClientCounts
from tallystream.simulator.population import UNKNOWN_MODEL, Mix

MODELS: Mix[str] = Mix(
    [
        ("claude-opus-5-5", 25),
        ("claude-sonnet-5-5", 22),
        ("claude-sonnet-4-5", 17),
        ("claude-opus-4-8", 10),
        ("claude-haiku-4-5", 9),
        ("claude-sonnet-4-5-20250929", 5),
        ("claude-haiku-5-5", 5),
        ("claude-opus-4-1", 4),
        (UNKNOWN_MODEL, 3),
    ]
)
SMALL = "claude-haiku-4-5"
"""What it names sessions with."""
FAST = frozenset({"claude-opus-5-5", "claude-opus-4-8"})
"""Models that are sold at these speeds, and asked for an effort."""
UNKNOWN_SPEED = "turbo"
"""No price book knows what it costs."""
SPEEDS: Mix[str] = Mix([("normal", 88), ("fast", 11), (UNKNOWN_SPEED, 1)])

_RATES = {
    "claude-opus-5": (4.0, 20.0, 0.2),
    "claude-opus-4-8": (5.0, 25.0, 0.5),
    "claude-opus-4-1": (15.0, 75.0, 1.5),
    "claude-sonnet-5": (2.0, 10.0, 0.1),
    "claude-haiku-4": (1.0, 5.0, 0.1),
}
_DEFAULT = (3.0, 15.0, 0.3)
"""Dollars for a million tokens of input, of output, read from the cache: a table that is not always up to date."""
PICO = Decimal(10) ** 12


def estimate(model: str, speed: str, counts: ClientCounts) -> float:
    """Return dollars as the client reckons them: in floating point, for any model."""
    plain, out, read = next((rates for name, rates in _RATES.items() if model.startswith(name)), _DEFAULT)
    written = counts.cache_write_5m / 1e6 * plain * 1.25 + counts.cache_write_1h / 1e6 * plain * 2
    usd = counts.input_uncached / 1e6 * plain + counts.cache_read / 1e6 * read + written + counts.output / 1e6 * out
    return usd * 2 if speed == "fast" else usd


def pico_of(usd: float) -> int:
    """Return pico-dollars of what a client wrote as the shortest number that gives this one."""
    return int((Decimal(repr(usd)) * PICO).to_integral_value())
