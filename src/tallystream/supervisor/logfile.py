"""A component's log: writes its lines to disk in bounded space, and picks the important ones to show."""

from __future__ import annotations

import json
import re
from collections import deque
from pathlib import Path
from typing import BinaryIO

from tallystream.schemas.legible import visible, visible_lines

MAX_BYTES = 10 << 20
KEPT = 3
TAIL_LINES = 50
_JAVA = re.compile(r"^\S+ \[[^\]]*\] (WARN|ERROR|FATAL) ")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""In a line of JSON these can only stand in texts, and there they may be written so."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LEVELS = {"warning": 1, "warn": 1, "error": 2, "critical": 2, "fatal": 2, "exception": 2}


class LogFile:
    """Appends lines to `path`. At `max_bytes` it is rotated to `path.1`, `path.2` and so on, up to `KEPT` files."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._max = max_bytes
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._file: BinaryIO = path.open("ab")
        self._size = self._file.tell()

    def write(self, line: bytes) -> None:
        """Append one line, with its newline; what could steer a terminal that shows the file is written out."""
        line = _legible(line)
        if self._size + len(line) > self._max and self._size:
            self._rotate()
        self._file.write(line)
        self._file.flush()
        self._size += len(line)
        self._tail.append(line.decode().rstrip())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def last_error(self) -> tuple[str, str]:
        """Return (message, hint) of the error that ended the component, as our command line prints or logs it."""
        lines = list(self._tail)
        for index in range(len(lines) - 1, -1, -1):
            if (logged := _failed(lines[index])) is not None:
                return logged
            if lines[index].startswith("error: "):
                hint = lines[index + 1].strip() if index + 1 < len(lines) else ""
                return lines[index].removeprefix("error: "), hint
        return (lines[-1] if lines else "it logged no error"), ""

    def _rotate(self) -> None:
        self._file.close()
        for number in range(KEPT - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        self._file = self.path.open("ab")
        self._size = 0


def _legible(line: bytes) -> bytes:
    """Return a line without colours, and without what could steer a terminal."""
    text = _ANSI.sub("", line.decode(errors="replace"))
    ends = "\n" if text.endswith("\n") else ""
    text = text.rstrip("\r\n")
    shown = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) if text.startswith("{") else visible_lines(text)
    return (shown + ends).encode(errors="replace")


def important(line: bytes, *, quiet: bool = False) -> str | None:
    """Return the text to show for a line if it is a warning or error (`quiet`: only errors), else None.

    Recognizes the two formats of components: JSON with a level, and Kafka's `time [thread] LEVEL class - text`.
    """
    least = 2 if quiet else 1
    text = line.decode(errors="replace").strip()
    if text.startswith("{"):
        try:
            entry = json.loads(text)
        except ValueError:
            return None
        if not isinstance(entry, dict) or _LEVELS.get(str(entry.get("level")), 0) < least:
            return None
        if entry.get("event") == "failed":
            return None  # its final error, which the supervisor reports itself
        rest = [f"{k}={v}" for k, v in entry.items() if k not in ("event", "level", "timestamp", "exception", "logger")]
        return visible(" ".join([str(entry.get("event", "")), *rest])[:500])
    match = _JAVA.match(text)
    if match and _LEVELS[match[1].lower()] >= least:
        return visible(text[match.end() :][:500])
    return None


def _failed(line: str) -> tuple[str, str] | None:
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return (str(entry.get("error", "")), str(entry.get("hint", ""))) if entry.get("event") == "failed" else None
