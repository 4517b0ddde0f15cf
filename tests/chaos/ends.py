"""What processes that ended by themselves had logged last: printed at once, and kept when the rest of a run is removed.

A worker that exits with 70 is started again and counts on, so such an end is not a fault. But a component that ends
with an error that nobody expected is one, even if everything is exact, and without its log nobody could tell the cause.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from tallystream.streams.runtime.crash import EXIT_CODE

OURS = (0, -signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of processes that a fault has ended, or told to end."""
SHOWN = 8
"""Lines of a log that are printed."""
LINE = 600
"""Characters of a line that are printed."""
FOLDER = "ends"


def say(text: str) -> None:
    """Print a line with the time."""
    sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stdout.flush()


def note(name: str, code: int, log: Path, since: int, number: int) -> Path | None:
    """Keep and print the log of a process that ended by itself, from the byte `since` on; return where it is kept.

    Returns None, and does nothing, if the process was told to end or was killed.
    """
    if code in OURS:
        return None
    with log.open("rb") as file:
        file.seek(since)
        written = file.read()
    kept = log.parent / FOLDER / f"{name}-{number}-exit-{code}.log"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(written)
    last = written.decode(errors="replace").splitlines()[-SHOWN:]
    say("\n    ".join([f"{name} ended by itself with {code}; its last lines, of {kept}:", *(x[:LINE] for x in last)]))
    return kept


def unexpected(folder: Path) -> list[str]:
    """Return the ends below a run's folder that were no decision of the process, but an error that nobody expected."""
    found = []
    for kept in sorted((folder / FOLDER).glob("*.log")):
        lines = kept.read_text(errors="replace").splitlines()
        last = next((document for line in reversed(lines) if (document := _failed(line)) is not None), None)
        if last is not None and last.get("code") == "internal":
            found.append(f"{kept.stem}: {last.get('error')}")
        elif last is None and not kept.stem.endswith(f"-{EXIT_CODE}"):
            found.append(f"{kept.stem}: {lines[-1][:LINE] if lines else 'it has logged nothing'}")
    return found


def _failed(line: str) -> dict[str, object] | None:
    """Return the line with which a component reports the error that ends it."""
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) and document.get("event") == "failed" else None
