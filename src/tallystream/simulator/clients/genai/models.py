"""What programs with GenAI spans are used with."""

from __future__ import annotations

from tallystream.simulator.population import UNKNOWN_MODEL, Mix

OPENAI: Mix[str] = Mix([("gpt-5", 40), ("gpt-5-mini", 35), ("gpt-4.1", 20), (UNKNOWN_MODEL, 5)])
ANTHROPIC: Mix[str] = Mix([("claude-sonnet-4-5", 55), ("claude-haiku-4-5", 30), ("claude-opus-4-1", 15)])
