"""How a worker exits, and its message."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError
from tests.support.counting import EndedError, ended

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.crash import FailFast, last_words


def test_crash_message_is_one_line_for_expected_errors() -> None:
    assert last_words("why") == "FATAL why\n"
    assert last_words(UnfitError("what", "do this")) == "FATAL what (do this)\n"
    assert last_words(KafkaConnectionError("away")) == "FATAL Kafka: KafkaConnectionError('away')\n"
    with pytest.raises(KeyError) as caught:
        {"a": 1}["x"]
    assert "Traceback" in last_words(caught.value)


def test_crash_exits_with_70_and_writes_the_reason_to_the_original_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EndedError, match="70"):
        FailFast(ended)("because")
    assert capfd.readouterr().err == "FATAL because\n"
