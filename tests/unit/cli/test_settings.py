"""Settings as users write them: a missing file, a Kafka listener with its protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystream.cli.options import settings_from
from tallystream.schemas.errors import UsageError


def test_missing_config_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TALLYSTREAM_CONFIG", str(tmp_path / "tallystream.tmol"))
    with pytest.raises(UsageError, match=r"tallystream\.tmol, which does not exist"):
        settings_from()


@pytest.mark.parametrize(
    ("written", "protocol", "host"),
    [
        ("broker:9092", "PLAINTEXT", "broker:9092"),
        ("PLAINTEXT://broker:9092", "PLAINTEXT", "broker:9092"),
        ("SASL_SSL://a:9093,SASL_SSL://b:9093", "SASL_SSL", "a:9093,b:9093"),
        ("ssl://a:9093, b:9093", "SSL", "a:9093,b:9093"),
        ("[fd00::1]:9092", "PLAINTEXT", "[fd00::1]:9092"),
        ("PLAINTEXT://[fd00::1]:9092", "PLAINTEXT", "[fd00::1]:9092"),
    ],
)
def test_kafka_listener_with_protocol_is_accepted(
    monkeypatch: pytest.MonkeyPatch, written: str, protocol: str, host: str
) -> None:
    monkeypatch.delenv("TALLYSTREAM_CONFIG", raising=False)
    settings = settings_from(kafka=written)
    assert (settings.kafka, settings.kafka_protocol) == (host, protocol)
    monkeypatch.setenv("TALLYSTREAM_KAFKA", written)
    assert settings_from().kafka == host


@pytest.mark.parametrize("written", ["SSL://a:1,PLAINTEXT://b:2", "PLAINTEXT://a:1"])
def test_kafka_listener_with_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("TALLYSTREAM_KAFKA_PROTOCOL", "SASL_SSL")
    with pytest.raises(UsageError, match="protocol"):
        settings_from(kafka=written)
