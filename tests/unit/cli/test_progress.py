"""Where the log of a command goes."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import structlog

from tallystream.cli.output.progress import log_to_stderr


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


def test_log_goes_to_the_current_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    log_to_stderr()
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    structlog.get_logger().info("topic_mended")
    assert "topic_mended" in second.getvalue()


def test_log_stays_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    structlog.get_logger().info("topic_mended")
    said = capsys.readouterr()
    assert (said.out, "topic_mended" in said.err) == ("", True)
