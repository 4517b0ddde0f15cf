"""Terminals that are not UTF-8, and users without a home."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from tallystream.cli import options
from tallystream.cli.output import encoding
from tallystream.cli.output.text import short_id

TALLYSTREAM = [sys.executable, "-m", "tallystream"]
TEXT = f"{short_id('0123456789abcdef0123')} é € — \u65e5 ✓"


@pytest.mark.parametrize("name", ["latin-1", "ascii", "cp437", "utf-8"])
def test_table_is_readable_in_every_terminal_encoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=name))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=name))
    encoding.adapt()
    Console(file=sys.stdout).print(TEXT)
    options.emit_json({"session": TEXT})
    sys.stdout.flush()
    shown, document = raw.getvalue().decode(name).split("\n", 1)
    assert json.loads(document) == {"session": TEXT}, "JSON is exact"
    if name == "utf-8":
        assert shown == TEXT
    else:
        assert shown.startswith("01234567...0123 ")
        assert "\\u65e5" in shown


@pytest.mark.parametrize("command", [["--help"], ["cost", "--help"], ["cost", "sessions", "--data-dir", "/nowhere"]])
@pytest.mark.thorough
def test_commands_keep_their_exit_codes_with_latin_1_output(command: list[str]) -> None:
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([*TALLYSTREAM, *command], capture_output=True, check=False, env=env, timeout=60)
    assert done.returncode == (3 if "sessions" in command else 0), done.stderr
    assert b"defect" not in done.stderr


NO_HOME = """
import os, pwd, sys
for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "TALLYSTREAM_DATA_DIR", "TALLYSTREAM_CACHE_DIR"):
    os.environ.pop(name, None)
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
from tallystream.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["--version"], 0, "tallystream"),
        (["cost", "sessions"], 2, "no home directory"),
        (["status", "--data-dir", "/nowhere"], 3, "nothing runs in /nowhere"),
    ],
)
@pytest.mark.thorough
def test_user_without_a_home_directory_is_told_to_name_a_data_dir(command: list[str], code: int, says: str) -> None:
    argv = [sys.executable, "-c", NO_HOME, *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, says in done.stdout + done.stderr) == (code, True), done.stderr
    assert "defect" not in done.stderr


@pytest.mark.thorough
def test_missing_settings_file_is_wrong_usage() -> None:
    env = os.environ | {"TALLYSTREAM_CONFIG": "/nowhere/tallystream.toml"}
    argv = [*TALLYSTREAM, "cost", "sessions"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=60)
    assert done.returncode == 2
    assert "/nowhere/tallystream.toml" in done.stderr
