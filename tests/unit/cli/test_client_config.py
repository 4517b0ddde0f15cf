"""The configuration that is printed for each client."""

from __future__ import annotations

import json
import shlex
import tomllib
from typing import get_args
from urllib.parse import unquote

import pytest
import yaml

from tallystream.schemas.connections import Provider
from tallystream.streams.connections.client_config import Endpoints

AT = Endpoints("http://127.0.0.1:4318", "127.0.0.1:4317", "codex", "SecretSecretSecret0001")
BASE = "http://127.0.0.1:4318/api/v1/public/ingest/otel/codex/SecretSecretSecret0001"


def exports(config: str) -> dict[str, str]:
    words = [shlex.split(line) for line in config.splitlines()]
    assert all(word[0] == "export" for word in words)
    return dict(word[1].split("=", 1) for word in words)


def test_urls_have_the_documented_shape() -> None:
    assert AT.base_url == BASE
    assert AT.url("logs") == f"{BASE}/v1/logs"
    assert Endpoints("https://x.example/", None, "claude", "i").base_url.startswith("https://x.example/api/v1/")


def test_codex_block_is_toml_with_one_endpoint_per_signal() -> None:
    otel = tomllib.loads(AT.config)["otel"]
    exporters = {"logs": "exporter", "traces": "trace_exporter", "metrics": "metrics_exporter"}
    for signal, name in exporters.items():
        http = otel[name]["otlp-http"]
        assert http == {"endpoint": f"{BASE}/v1/{signal}", "protocol": "binary", "headers": {}}


def test_bearer_secrets_are_part_of_every_block() -> None:
    codex = tomllib.loads(Endpoints("http://h:1", None, "codex", "id", "s3cret").config)["otel"]
    assert codex["metrics_exporter"]["otlp-http"]["headers"] == {"authorization": "Bearer s3cret"}
    claude = exports(Endpoints("http://h:1", None, "claude", "id", "s3cret").config)
    assert unquote(claude["OTEL_EXPORTER_OTLP_HEADERS"]) == "authorization=Bearer s3cret"
    assert Endpoints("http://h:1", None, "codex", "id", "s3cret").headers == {
        "x-tallystream-connection": "id",
        "authorization": "Bearer s3cret",
    }


@pytest.mark.parametrize(
    ("provider", "name"),
    [("claude", "OTEL_EXPORTER_OTLP_ENDPOINT"), ("gemini", "GEMINI_TELEMETRY_OTLP_ENDPOINT")],
)
def test_environment_blocks_name_the_base_url(provider: str, name: str) -> None:
    at = Endpoints("http://h:1", None, provider, "id")
    assert exports(at.config)[name] == at.base_url
    assert at.paste_into


def test_secrets_are_not_in_a_repr() -> None:
    assert "Secret" not in repr(AT)


SPAN_CLIENTS = ("copilot", "vscode", "qwen", "opencode", "litellm", "collector", "genai")


@pytest.mark.parametrize("provider", SPAN_CLIENTS)
@pytest.mark.parametrize("bearer", [None, "s3cret"])
def test_every_configuration_contains_url_and_secret(provider: str, bearer: str | None) -> None:
    at = Endpoints("http://h:1", None, provider, "id", bearer)
    assert at.base_url in at.config
    assert ("s3cret" in at.config) == (bearer is not None)
    assert at.paste_into


@pytest.mark.parametrize("provider", get_args(Provider))
def test_every_provider_has_a_configuration(provider: str) -> None:
    assert Endpoints("http://h:1", None, provider, "id").config.endswith("\n")


@pytest.mark.parametrize(
    ("provider", "key"), [("vscode", "github.copilot.chat.otel.otlpEndpoint"), ("qwen", "telemetry")]
)
def test_json_configurations_are_valid_json(provider: str, key: str) -> None:
    assert key in json.loads(Endpoints("http://h:1", None, provider, "id").config)


def test_vscode_configuration_covers_the_agent_host() -> None:
    """Sessions of the Agent Host have settings of their own."""
    at = Endpoints("http://h:1", None, "vscode", "id")
    settings = json.loads(at.config)
    assert settings["chat.agentHost.otel.enabled"] is True
    assert settings["chat.agentHost.otel.otlpEndpoint"] == settings["github.copilot.chat.otel.otlpEndpoint"]


def test_cline_is_turned_on_by_the_word_that_every_version_reads() -> None:
    """Its extension compares the variable with `true`; its newer library reads `1`, too."""
    assert "CLINE_OTEL_TELEMETRY_ENABLED=true\n" in Endpoints("http://h:1", None, "cline", "id").config


def test_collector_configuration_is_yaml() -> None:
    at = Endpoints("http://h:1", None, "collector", "id", "s3cret")
    exporter = yaml.safe_load(at.config)["exporters"]["otlphttp/tallystream"]
    assert exporter == {"endpoint": at.base_url, "headers": {"authorization": "Bearer s3cret"}}


def test_litellm_configuration_has_the_full_traces_url() -> None:
    at = Endpoints("http://h:1", None, "litellm", "id")
    assert f"OTEL_ENDPOINT={at.url('traces')}\n" in at.config
