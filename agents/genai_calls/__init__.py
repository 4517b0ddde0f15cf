"""The agent that joins sightings of model calls in spans, and sends each call to `usage` once (docs/agents.md)."""
