"""The command line as a process: fast help, one-line errors, exit codes."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

import tallystream
from tallystream.cli import MODULES
from tallystream.schemas.connections import Provider

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[3]
SLOW_TO_IMPORT = {"aiohttp", "aiokafka", "faust", "genai_prices", "pydantic", "pydantic_settings", "rocksdict", "jgo"}


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "tallystream", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**clean, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", **environment},
    )


def test_version_option_prints_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"tallystream {tallystream.__version__}\n")


def test_help_names_the_first_three_steps() -> None:
    for args in ((), ("--help",)):
        done = run(*args)
        assert done.returncode == 0
        for step in ("tallystream up", "tallystream connections create codex", "tallystream cost sessions"):
            assert step in done.stdout


def imported(*args: str) -> set[str]:
    """Return the top-level packages that a command imports."""
    program = (
        f"import sys, tallystream.cli as cli\ntry:\n    cli.main({list(args)})\n"
        "except SystemExit:\n    print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_help_names_every_provider() -> None:
    # the list is written there once more, because importing it would make every help slow
    shown = re.findall(r"\w+", run("connections", "create", "--help").stdout)
    assert set(get_args(Provider)) <= set(shown)


def test_help_does_not_import_slow_modules() -> None:
    assert SLOW_TO_IMPORT & imported("--help") == set()


def test_status_does_not_import_kafka_clients(tmp_path: Path) -> None:
    slow = {"aiohttp", "aiokafka", "faust", "filelock", "opentelemetry", "structlog"}
    assert slow & imported("status", "--data-dir", str(tmp_path)) == set()


def test_each_command_is_found_in_its_module() -> None:
    for module, commands in MODULES.items():
        app = typer.Typer()
        importlib.import_module(f"tallystream.cli.commands.{module}").register(app)
        groups = [one.name for one in app.registered_groups]
        assert (*(one.name for one in app.registered_commands), *groups) == commands


def test_list_of_commands_has_the_first_line_of_the_help_of_each() -> None:
    listed = " ".join(run("--help", COLUMNS="400").stdout.split())
    for command in ("sql", "cost", "connections", "status"):
        first = run(command, "--help", COLUMNS="400").stdout.split("\n\n")[0].splitlines()[2].strip()
        assert first.partition(".")[0] in listed


@pytest.mark.parametrize(
    "args", [("--help",), ("wait", "--help"), ("connections", "--help"), ("port", "blueprints", "--help")]
)
def test_help_shows_no_values_for_flags(args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.returncode == 0
    assert "--help" in done.stdout
    assert "<bool>" not in done.stdout


def test_wrong_usage_is_reported_in_one_line_with_a_next_step() -> None:
    done = run("status", "--nonsense")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: No such option: --nonsense",
        "  `tallystream status --help` shows the arguments and options",
    ]


def test_errors_are_json_documents_with_json_option(tmp_path: Path) -> None:
    done = run("status", "--json", "--data-dir", str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (3, "")
    error = json.loads(done.stderr)
    assert error["code"] == "unreachable"
    assert "tallystream up" in error["hint"]


def test_invalid_settings_are_named_without_their_values(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('partitions = "hunter2"\nuser_key = ["hunter2"]\n')
    done = run("status", TALLYSTREAM_CONFIG=str(config))
    assert done.returncode == 2
    assert "partitions" in done.stderr
    assert "user_key" in done.stderr
    assert "hunter2" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_invalid_settings_file_is_reported_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("= what")
    done = run("status", TALLYSTREAM_CONFIG=str(config))
    assert done.returncode == 2
    assert "TALLYSTREAM_CONFIG" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_down_succeeds_if_nothing_runs(tmp_path: Path) -> None:
    done = run("down", "--data-dir", str(tmp_path / "nothing"))
    assert done.returncode == 0
    assert "nothing runs" in done.stderr
