"""The embedded broker's secret: created once, readable only by its owner."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tallystream.cli.options import cluster
from tallystream.schemas.errors import UsageError
from tallystream.schemas.run import Run, RunningComponent
from tallystream.settings.settings import Settings
from tallystream.streams.embedded import secret
from tallystream.supervisor import runfile
from tallystream.supervisor.runfile import SupervisorLock

ADDRESS = "127.0.0.1:29092"


def test_secret_is_created_once_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    directory = tmp_path / "kafka"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: secret.ensure(directory), range(16)))
    assert len(found) == 1
    assert len(found.pop()) == 64
    assert [entry.name for entry in directory.iterdir()] == ["secret"]
    assert stat.S_IMODE((directory / "secret").stat().st_mode) == 0o600


def test_secret_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    made = secret.ensure(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    assert secret.read(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_missing_empty_or_linked_secret_is_refused_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file") as caught:
        secret.settings(tmp_path, ADDRESS)
    assert "tallystream up" in caught.value.hint
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("a" * 64)
    (tmp_path / "secret").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="secret"):
        secret.ensure(tmp_path)
    (tmp_path / "secret").unlink()
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(UsageError, match="does not contain a secret"):
        secret.ensure(tmp_path)


def test_new_secret_is_unknown_to_kafka_until_noted(tmp_path: Path) -> None:
    first = secret.ensure(tmp_path)
    assert not secret.is_known(tmp_path, first)
    secret.set_known(tmp_path, first)
    assert secret.is_known(tmp_path, first)
    assert first not in (tmp_path / "secret.known").read_text()
    (tmp_path / "secret").unlink()
    assert not secret.is_known(tmp_path, secret.ensure(tmp_path))


def test_controllers_secret_does_not_reveal_the_clients() -> None:
    listener = secret.plain_listener(1, secret.controllers("c0ffee"), "CONTROLLER")
    assert "c0ffee" not in str(listener.properties)
    assert secret.controllers("c0ffee") == secret.controllers("c0ffee") != secret.controllers("c0ffe")


def test_commands_use_the_secret_whether_they_find_the_broker_or_are_given_its_address(tmp_path: Path) -> None:
    made = secret.ensure(tmp_path / "kafka")
    running = Run(
        http="http://127.0.0.1:4318",
        grpc=None,
        kafka=ADDRESS,
        components=[RunningComponent(name="kafka", pid=os.getpid(), ops_url=None)],
    )
    with SupervisorLock(tmp_path):
        runfile.write(tmp_path, running)
        for named in (None, ADDRESS):
            found = cluster(Settings(data_dir=tmp_path, kafka=named))
            assert (found.protocol, found.username, found.password) == ("SASL_PLAINTEXT", "tallystream", made)
            assert made not in repr(found)
        other = cluster(Settings(data_dir=tmp_path, kafka="kafka:9092"))
        assert (other.protocol, other.password) == ("PLAINTEXT", None)
