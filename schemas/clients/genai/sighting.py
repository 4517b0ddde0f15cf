"""One span as evidence of a model call: only the fields that the join needs, never content."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Kind = Literal["call", "sum", "node"]
"""`call`: one request to a model. `sum`: a span whose usage may be the sum of others'. `node`: a place in the tree."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A span that saw a model call, or that stands above one.

    Counts are the producer's, converted to one convention: `input` includes cached and cache-written tokens, `output`
    includes reasoning. A count that the producer did not report is None.
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    """The nearest ancestor that is a sighting, or one that is not in the same request; empty for a root."""
    kind: Kind = "node"
    start_ns: int = 0
    end_ns: int = 0
    scope: str = ""
    process: str = ""
    """Identifies the process that wrote the span."""
    client: str = "genai"
    session: str | None = None
    parent_session: str | None = None
    agent: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    request_model: str | None = None
    gateway_model: str | None = None
    """The model that a gateway requested, when the other names may be aliases of its own."""
    provider: str | None = None
    """As the producer wrote it."""
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    """A part of `cache_write`."""
    reasoning: int | None = None
    finished: bool = False
    """The producer reports a finish reason, so the response is complete."""
    failed: bool = False
    tier: str | None = None
    cost_usd: str | None = None
    """The producer's own estimate or bill."""
    user: str | None = None
    service: str | None = None
    """service.name: the program."""

    @property
    def key(self) -> tuple[str, str]:
        """The identity of the span."""
        return self.trace_id, self.span_id

    @property
    def has_usage(self) -> bool:
        """Whether it has token counts of a call; counts of 0 do not qualify."""
        return bool(self.input or self.output)

    def to_wire(self) -> dict[str, Any]:
        """Return it as a plain dict without default values."""
        return {name: value for name, value in asdict(self).items() if value != _DEFAULTS.get(name)}

    @classmethod
    def from_wire(cls, value: dict[str, Any]) -> Sighting:
        """Return the sighting that `to_wire` wrote."""
        return cls(**value)


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Sighting) if field.name[-3:] != "_id"} | {
    "parent_id": "",
    "response_id": None,
}
