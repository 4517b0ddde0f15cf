"""The registry on disk, so that a gateway that starts while Kafka is away knows its connections.

Holds what the topic holds: hashes, never an ingest id. Written by rename: a reader sees a whole file or the one before.
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
    """The whole file. `topic` and `cluster_id` (empty: of version 0.1) say whose it is."""

    model_config = ConfigDict(extra="ignore")

    topic: str
    cluster_id: str = ""
    bootstrap: str = ""
    """Where that cluster was met."""
    connections: list[Connection]


def save(path: Path, topic: str, cluster_id: str, connections: Sequence[Connection], bootstrap: str = "") -> None:
    """Replace the snapshot.

    Raises:
        OSError: it cannot be written; the one before is still there.

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
    """Return the snapshot; None when there is none that can be read, or it is another topic's."""
    try:
        found = Snapshot.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as exc:
        log.warning("registry_snapshot_unreadable", path=str(path), error=type(exc).__name__)
        return None
    return found if found.topic == topic else None
