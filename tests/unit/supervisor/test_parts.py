"""The supervisor's parts, each alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas.errors import UsageError
from tallystream.schemas.run import Component, Run
from tallystream.settings.settings import Settings
from tallystream.streams.service.backoff import Backoff, FailureBackoff
from tallystream.supervisor import runfile
from tallystream.supervisor.logfile import KEPT, LogFile, important
from tallystream.supervisor.specs import plan

RUN = Run(
    http="http://127.0.0.1:4318",
    grpc=None,
    kafka="127.0.0.1:9092",
    components=[Component(name="kafka", pid=1, ops_url=None)],
)


def test_backoff_doubles_to_its_limit_and_starts_over_after_a_long_run() -> None:
    backoff = FailureBackoff(Backoff(0.5, 3.0), 30.0)
    assert [backoff.after_run(1.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.after_run(30.0) == 0.5
    assert backoff.after_run(29.9) == 1.0


@given(st.lists(st.floats(0, 100), max_size=50))
def test_backoff_never_leaves_its_bounds(runs: list[float]) -> None:
    backoff = FailureBackoff(Backoff(0.2, 10.0), 30.0)
    assert all(0.2 <= backoff.after_run(ran) <= 10.0 for ran in runs)


def test_a_run_file_counts_only_while_its_supervisor_lives(tmp_path: Path) -> None:
    with runfile.SupervisorLock(tmp_path):
        assert runfile.read_live(tmp_path) is None
        runfile.write(tmp_path, RUN)
        assert runfile.read_live(tmp_path) == RUN
        assert set(json.loads((tmp_path / "run.json").read_text())) == {"http", "grpc", "kafka", "components"}
    assert runfile.owner(tmp_path) is None
    assert runfile.read_live(tmp_path) is None
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def test_a_data_dir_has_one_supervisor(tmp_path: Path) -> None:
    with runfile.SupervisorLock(tmp_path), pytest.raises(UsageError, match="already runs"):
        runfile.SupervisorLock(tmp_path).__enter__()
    with runfile.SupervisorLock(tmp_path):
        pass


def test_a_data_dir_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        runfile.SupervisorLock(tmp_path / "file").__enter__()


def test_a_log_takes_bounded_space_and_keeps_the_newest(tmp_path: Path) -> None:
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


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = LogFile(tmp_path / "a.log")
        log.write(text)
        log.close()
    assert (tmp_path / "a.log").read_bytes() == b"first\nsecond\n"


def test_the_error_a_component_ended_with_is_found(tmp_path: Path) -> None:
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
def test_people_are_shown_what_matters(line: bytes, shown: str | None, shown_quietly: str | None) -> None:
    assert important(line) == shown
    assert important(line, quiet=True) == shown_quietly


def test_the_plan_runs_kafka_only_where_no_cluster_is_named(tmp_path: Path) -> None:
    ours = plan(Settings(data_dir=tmp_path), port=4318, workers=2, embedded_port=29092)
    assert [spec.name for spec in ours.specs] == ["kafka", "gateway", "worker-1", "worker-2", "exporter"]
    assert ours.kafka == "127.0.0.1:29092"
    theirs = plan(Settings(data_dir=tmp_path, kafka="k:9092"), port=4318, workers=1, embedded_port=None)
    assert [spec.name for spec in theirs.specs] == ["gateway", "worker", "exporter"]
    assert theirs.kafka == "k:9092"
    for spec in theirs.specs:
        assert spec.argv[spec.argv.index("--kafka") :][:2] == ("--kafka", "k:9092")
