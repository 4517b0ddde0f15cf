"""The agent that joins what spans saw of model calls, and sends each call on to `usage` once (docs/agents.md)."""
