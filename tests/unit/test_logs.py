"""Logs of components: JSON documents for programs, readable lines for people."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\nlevel=info event=forged\u202e"
PROGRAM = """
import logging, sys
import structlog
from tallystream.components import logs

logs.configure()
hostile = sys.argv[1]
log = structlog.get_logger()
log.info("started", detail=hostile)
logging.getLogger("library").warning("said %s", hostile)
secret = "local-secret-of-the-test"
try:
    raise ValueError("broken")
except ValueError:
    log.exception("went_wrong")
log.debug("not shown")
"""


def run(stderr: int) -> bytes:
    argv = [sys.executable, "-c", PROGRAM, HOSTILE]
    return subprocess.run(argv, check=True, timeout=60, stderr=stderr).stderr or b""


def test_events_are_logged_as_json_documents() -> None:
    lines = run(subprocess.PIPE).decode().splitlines()
    started, said, went_wrong = map(json.loads, lines)
    assert (started["event"], started["level"], started["detail"]) == ("started", "info", HOSTILE)
    assert (said["event"], said["level"], said["logger"]) == (f"said {HOSTILE}", "warning", "library")
    assert went_wrong["exception"][0]["exc_type"] == "ValueError"
    assert all(entry["timestamp"].endswith("Z") for entry in (started, said, went_wrong))
    assert not any("\x1b" in line or "local-secret" in line for line in lines), "no control characters, no locals"


def test_terminal_log_lines_are_escaped() -> None:
    parent, child = pty.openpty()
    run(child)
    os.close(child)
    written = b""
    while True:
        try:
            more = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        written += more
    os.close(parent)
    text = written.decode()
    assert "started" in text
    assert "ValueError: broken" in text
    assert "\\x1b[2J" in text, "it is written out"
    assert "\x1b[2J" not in text
    assert "\x1b]0;" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert not [line for line in text.splitlines() if line.startswith("level=info")], "no line is forged"
    assert "local-secret" not in text.replace('secret = "local-secret-of-the-test"', "")


@pytest.mark.thorough
def test_start_error_is_one_json_line(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tallystream", "gateway", "--kafka", "127.0.0.1:1", "--data-dir", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTREAM_")}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"]) == ("failed", "error")
    assert "TALLYSTREAM_USER_KEY" in entry["hint"]


@pytest.mark.thorough
def test_unexpected_error_is_one_json_line_with_its_traceback(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from tallystream.components import gateway, logs\n"
        "def run(*_, **__):\n"
        "    logs.configure()\n"
        "    secret = 'local-secret-of-the-test'\n"
        "    raise KeyError('a defect')\n"
        "gateway.run = run\n"
        "from tallystream.cli import main\n"
        "main(['gateway', '--kafka', '127.0.0.1:1', '--data-dir', sys.argv[1]])\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["code"], entry["error"]) == ("failed", "internal", "KeyError: 'a defect'")
    assert entry["exception"][0]["frames"]
    assert "local-secret" not in line.replace("secret = 'local-secret-of-the-test'", "")


STEPS = """
from tallystream.components import logs

logs.configure()
from tallystream.streams.runtime import late_writes
from tallystream.streams.runtime.faust_backend import App

late_writes.log.info("late_rows_not_looked_for", retry_in_s=5)
App.logger.info("[^App]: Starting...")  # as mode, Faust's library of services, does at each step of ours
App.logger.error("[^App]: Crashed")
"""


@pytest.mark.thorough
def test_runtime_events_are_logged_without_fausts_service_steps() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], check=True, timeout=60, stderr=subprocess.PIPE)
    lines = [json.loads(line) for line in done.stderr.decode().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("late_rows_not_looked_for", "info"),
        ("[^App]: Crashed", "error"),
    ]
