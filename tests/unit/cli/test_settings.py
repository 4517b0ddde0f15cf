"""Settings as users write them: files, durations, sizes, a Kafka listener with its protocol, a pod's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystream.cli.options import settings_from
from tallystream.schemas.errors import UsageError


def test_missing_config_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TALLYSTREAM_CONFIG", str(tmp_path / "tallystream.tmol"))
    with pytest.raises(UsageError, match=r"tallystream\.tmol cannot be read: it does not exist"):
        settings_from()


def test_config_file_may_begin_with_a_byte_order_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows' editors write one, and lines that end in CR LF."""
    file = tmp_path / "tallystream.toml"
    file.write_bytes(b'\xef\xbb\xbfpartitions = 7\r\nport.clientId = "me"\r\n')
    monkeypatch.setenv("TALLYSTREAM_CONFIG", str(file))
    settings = settings_from()
    assert (settings.partitions, settings.port_client_id) == (7, "me")


def test_invalid_config_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("partitions = ")
    monkeypatch.setenv("TALLYSTREAM_CONFIG", str(tmp_path / "wrong.toml"))
    with pytest.raises(UsageError, match=r"wrong\.toml cannot be read: Invalid value"):
        settings_from()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("9s", 9), ("9", 9), ("5m", 300), ("1m 30s", 90), ("PT9S", 9), ("0:00:09", 9)],
)
def test_durations_are_written_as_for_commands(monkeypatch: pytest.MonkeyPatch, written: str, seconds: int) -> None:
    monkeypatch.setenv("TALLYSTREAM_CALLS_HOLD", written)
    assert settings_from().calls_hold.total_seconds() == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("64MiB", 64 << 20),
        ("64 MB", 64 * 10**6),
        ("1.5Gi", 3 << 29),
        ("6.7108864e+07", 64 << 20),
        ("67108864", 64 << 20),
    ],
)
def test_sizes_may_have_a_unit(monkeypatch: pytest.MonkeyPatch, written: str, size: int) -> None:
    """Helm writes large numbers with an exponent."""
    monkeypatch.setenv("TALLYSTREAM_MAX_BODY_BYTES", written)
    assert settings_from().max_body_bytes == size


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("CALLS_HOLD", "soon", "calls_hold: durations look like"),
        ("CALLS_HOLD", "0s", "calls_hold: Input should be greater than 0 seconds"),
        ("CALLS_HOLD", "20m", "calls_hold: Input should be less than or equal to 10 minutes"),
        ("MAX_BODY_BYTES", "64 MiBs", "max_body_bytes: sizes look like"),
        ("MAX_BODY_BYTES", "1.5", "max_body_bytes: sizes look like"),
        ("MAX_BODY_BYTES", "10", "max_body_bytes: Input should be greater than or equal to 1024"),
    ],
)
def test_invalid_durations_and_sizes_name_the_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, written: str, message: str
) -> None:
    monkeypatch.setenv(f"TALLYSTREAM_{name}", written)
    with pytest.raises(UsageError, match=message):
        settings_from()


def test_service_links_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service `tallystream-grpc` in the namespace sets this variable in every pod."""
    monkeypatch.setenv("TALLYSTREAM_GRPC_PORT", "tcp://10.0.0.1:4317")
    assert settings_from().grpc_port is None
    monkeypatch.setenv("TALLYSTREAM_GRPC_PORT", "4417")
    assert settings_from().grpc_port == 4417


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
