"""One embedded broker for all processes of a test run: the first process that needs it starts it, and stops last."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from tests.support.open_kafka import OpenKafka


@contextlib.contextmanager
def shared_broker(folder: Path) -> Iterator[str]:
    """Provide the address of the run's broker; the processes of the run share `folder`.

    Who uses the broker holds `users` in common with the others. Who started it stops it once it has that lock alone;
    whoever comes after that starts another one.
    """
    address = folder / "kafka.address"
    with (folder / "kafka.users").open("w") as users, (folder / "kafka.turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        broker = None if address.exists() else OpenKafka(folder / "kafka")
        if broker is not None:
            broker.start()
            address.write_text(broker.bootstrap)
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        try:
            yield address.read_text()
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            if broker is not None:
                fcntl.flock(turn, fcntl.LOCK_EX)
                fcntl.flock(users, fcntl.LOCK_EX)
                address.unlink()
                broker.stop()
