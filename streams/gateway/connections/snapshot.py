"""The registry on disk, so that a gateway that starts while Kafka is unavailable knows its connections.

It contains the same as the topic: hashes, never an ingest id. It is replaced by rename, so readers never see a partial
file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from tallystream.schemas.connections import Connection

log = structlog.get_logger()


class Snapshot(BaseModel):
    """The whole file. `topic` and `cluster_id` (empty in version 0.1) identify its deployment."""

    model_config = ConfigDict(extra="ignore")

    topic: str
    cluster_id: str = ""
    bootstrap: str = ""
    """Bootstrap address at which that cluster was seen."""
    connections: list[Connection]


def save(path: Path, topic: str, cluster_id: str, connections: Sequence[Connection], bootstrap: str = "") -> None:
    """Replace the snapshot.

    Raises:
        OSError: it cannot be written; the previous one is unchanged.

    """
    document = Snapshot(topic=topic, cluster_id=cluster_id, bootstrap=bootstrap, connections=list(connections))
    text = document.model_dump_json()
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Path, topic: str) -> Snapshot | None:
    """Return the snapshot; None when it is missing, cannot be read, or belongs to another topic."""
    try:
        found = Snapshot.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as exc:
        log.warning("registry_snapshot_unreadable", path=str(path), error=type(exc).__name__)
        return None
    return found if found.topic == topic else None
