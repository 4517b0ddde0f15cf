"""What Gemini CLI is used with."""

from __future__ import annotations

from tallystream.simulator.population import UNKNOWN_MODEL, Mix

MODELS: Mix[str] = Mix(
    [
        ("gemini-2.5-pro", 30),
        ("gemini-2.5-flash", 22),
        ("gemini-3-pro-preview", 15),
        ("gemini-3.8-flash", 12),
        ("gemini-3.1-pro-preview", 8),
        ("gemini-2.5-flash-lite", 6),
        ("gemini-3-flash-preview", 4),
        (UNKNOWN_MODEL, 3),
    ]
)
ROUTER = "gemini-2.5-flash-lite"
"""What it asks which model to ask."""
