"""run.json and the lock of the data dir."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tallystream.schemas.errors import UsageError
from tallystream.schemas.run import Run, RunningComponent
from tallystream.supervisor import runfile

RUN = Run(
    http="http://127.0.0.1:4318",
    grpc=None,
    kafka="127.0.0.1:9092",
    components=[RunningComponent(name="kafka", pid=1, ops_url=None)],
)


def test_run_file_is_valid_only_while_its_supervisor_runs(tmp_path: Path) -> None:
    with runfile.SupervisorLock(tmp_path):
        assert runfile.read_live(tmp_path) is None
        runfile.write(tmp_path, RUN)
        assert runfile.read_live(tmp_path) == RUN
        written = json.loads((tmp_path / "run.json").read_text())
        assert set(written) == {"http", "grpc", "kafka", "console", "components"}
    assert runfile.owner(tmp_path) is None
    assert runfile.read_live(tmp_path) is None
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def test_data_dir_has_one_supervisor(tmp_path: Path) -> None:
    with runfile.SupervisorLock(tmp_path), pytest.raises(UsageError, match="already runs"):
        runfile.SupervisorLock(tmp_path).__enter__()
    with runfile.SupervisorLock(tmp_path):
        pass


def test_invalid_data_dir_is_reported_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a directory"):
        runfile.SupervisorLock(tmp_path / "file").__enter__()
