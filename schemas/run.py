"""The run file `DATA_DIR/run.json`: what `tallystream up` runs on this machine, written atomically (by rename) once it
is ready.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RunningComponent(BaseModel):
    """One process. `name` is the subcommand that it runs, plus `-N` where there are several."""

    model_config = ConfigDict(extra="forbid")

    name: str
    pid: int
    """The working process (Kafka: the JVM)."""
    ops_url: str | None
    """`http://127.0.0.1:PORT`, where `/healthz`, `/readyz` and `/metrics` answer."""


class Run(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    http: str
    """`http://127.0.0.1:4318`"""
    grpc: str | None
    kafka: str
    """`host:port`"""
    console: str | None = None
    """Base URL of the console; a link that logs in: `tallystream console link`."""
    components: list[RunningComponent]
