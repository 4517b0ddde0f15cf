"""Logs of components: their size is bounded, and only important lines are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tallystream.supervisor.logfile import KEPT, LogFile, important


def test_log_is_bounded_and_keeps_the_newest_lines(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "worker.log", max_bytes=100)
    for number in range(200):
        log.write(b"line %03d\n" % number)
    log.close()
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) == KEPT + 1
    assert all(file.stat().st_size <= 100 for file in files)
    newest = (tmp_path / "logs" / "worker.log").read_text().splitlines()
    assert newest[-1] == "line 199"
    assert (tmp_path / "logs" / "worker.log.1").read_text().splitlines()[-1] == f"line {int(newest[0][5:]) - 1:03d}"


def test_log_continues_in_an_existing_file(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = LogFile(tmp_path / "a.log")
        log.write(text)
        log.close()
    assert (tmp_path / "a.log").read_bytes() == b"first\nsecond\n"


def test_final_error_of_a_component_is_found(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    for line in (b'{"event": "x"}\n', b"\x1b[1;31merror:\x1b[0m port 1 is taken\n", b"  choose another\n"):
        log.write(line)
    log.close()
    assert log.last_error() == ("port 1 is taken", "choose another")


@pytest.mark.parametrize(
    ("line", "shown", "shown_quietly"),
    [
        (b'{"event": "lost", "level": "error", "n": 3, "timestamp": "t"}', "lost n=3", "lost n=3"),
        (b'{"event": "slow", "level": "warning"}', "slow", None),
        (b'{"event": "fine", "level": "info"}', None, None),
        (
            b"2026-11-22T01:35:49.5+0000 [main] ERROR kafka.Kafka - no space",
            "kafka.Kafka - no space",
            "kafka.Kafka - no space",
        ),
        (b"2026-11-22T01:35:49.5+0000 [a b] WARN kafka.Kafka - hm", "kafka.Kafka - hm", None),
        (b"2026-11-22T01:35:49.5+0000 [main] INFO kafka.Kafka - fine", None, None),
        (b'{"event": "cut', None, None),
        (b"[1, 2]", None, None),
        (b"\xff\xfe anything", None, None),
    ],
)
def test_only_warnings_and_errors_are_shown(line: bytes, shown: str | None, shown_quietly: str | None) -> None:
    assert important(line) == shown
    assert important(line, quiet=True) == shown_quietly


ESCAPES = "\x1b]0;owned\x07 \x9b31m \x00 \u202e"


@pytest.mark.parametrize("shape", ["json", "java", "plain"])
def test_log_file_and_terminal_contain_no_escapes(tmp_path: Path, shape: str) -> None:
    text = f"model {ESCAPES}"
    line = {
        "json": json.dumps({"event": "unpriced", "level": "warning", "model": text}, ensure_ascii=False).encode(),
        "java": f"12:00 [main] WARN kafka.Log - {text}".encode(),
        "plain": text.encode(),
    }[shape] + b"\n"
    log = LogFile(tmp_path / "a.log")
    log.write(line)
    log.write(json.dumps({"event": "unpriced", "level": "error", "model": text}).encode() + b"\n")
    log.close()
    kept = (tmp_path / "a.log").read_text()
    assert kept.count("\n") == 2
    shown = [important(line) or "", log.last_error()[0], kept.replace("\n", "")]
    assert all(one.isprintable() for one in shown), shown
    if shape == "json":
        assert json.loads(kept.splitlines()[0])["model"] == text
        assert "\\x1b" in shown[0]
