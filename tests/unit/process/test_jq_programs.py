"""Every JQ program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tallystream.streams.process.jq_programs import Jq, TooLongError

ENDLESS = "def f: f; f"


def test_program_returns_the_same_as_jq() -> None:
    assert Jq(".a[]").all('{"a": [1, 2.5, "é\\u0000", null, {"b": []}]}') == [1, 2.5, "é\x00", None, {"b": []}]
    assert Jq(".[0]").first("[7]") == 7
    assert Jq("empty").first("1") is None
    assert Jq(". | length").all_of([1, 2]) == [2]
    with pytest.raises(ValueError, match="Cannot index number"):
        Jq(".a").first("1")
    with pytest.raises(ValueError, match="ha"):
        Jq('error("ha")').first("1")


def test_invalid_program_is_refused_immediately() -> None:
    with pytest.raises(ValueError, match="syntax error"):
        Jq("][")


@pytest.mark.parametrize("program", [ENDLESS, "[range(1e12)]", "last(repeat(1))"])
def test_endless_program_is_stopped_and_the_next_run_works(program: str) -> None:
    began = time.monotonic()
    with pytest.raises(TooLongError):
        Jq(program).first("null", 0.5)
    assert time.monotonic() - began < 10
    assert Jq(".").first('"there"') == "there"


def test_large_inputs_and_outputs_work() -> None:
    text = '["' + "x" * 5_000_000 + '"]'
    assert len(Jq(".[0] + .[0]").first(text, 20)) == 10_000_000


RUNS = """
import os, sys
from tallystream.streams.process.jq_programs import Jq
program = Jq(". + 1")
program.first("0")
print(*open(f"/proc/self/task/{os.getpid()}/children").read().split(), flush=True)
while not os.path.exists(sys.argv[1]):
    assert program.first("1", 0.05) == 2
print("sound", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_cpu_time_counts_so_that_pauses_and_a_busy_machine_fail_no_program(tmp_path: Path) -> None:
    end = tmp_path / "end"
    with subprocess.Popen([sys.executable, "-c", RUNS, str(end)], stdout=subprocess.PIPE, text=True) as runs:
        assert runs.stdout is not None
        (child,) = map(int, runs.stdout.readline().split())
        for _ in range(5):
            os.kill(child, signal.SIGSTOP)
            time.sleep(0.2)  # four times what the program may take
            os.kill(child, signal.SIGCONT)
        end.touch()
        assert runs.stdout.readline() == "sound\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_process_that_somebody_ends_is_replaced(tmp_path: Path) -> None:
    end = tmp_path / "end"
    with subprocess.Popen([sys.executable, "-c", RUNS, str(end)], stdout=subprocess.PIPE, text=True) as runs:
        assert runs.stdout is not None
        (child,) = map(int, runs.stdout.readline().split())
        os.kill(child, signal.SIGSTOP)
        time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
        end.touch()
        assert runs.stdout.readline() == "sound\n"
