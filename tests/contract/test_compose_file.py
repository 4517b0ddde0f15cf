"""docker-compose.yml as a text: the variables and arguments in it must be settings and options that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallystream import __version__
from tallystream.settings.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"].startswith("tallystream:")}


def test_compose_file_has_every_component() -> None:
    assert set(OURS) == {"gateway", "worker", "exporter", "ledger", "console", "poller", "sink"}
    assert set(COMPOSE["services"]) - set(OURS) == {"kafka", "prometheus", "alertmanager", "grafana"}
    assert {one["image"] for one in OURS.values()} == {f"tallystream:{__version__}"}


@pytest.mark.parametrize("name", OURS)
def test_compose_variables_and_arguments_exist(name: str) -> None:
    service = OURS[name]
    for variable in service["environment"]:
        assert variable.removeprefix("TALLYSTREAM_").lower() in Settings.model_fields, variable
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TALLYSTREAM_")}
    argv = [sys.executable, "-m", "tallystream", *service["command"], "--help"]
    assert subprocess.run(argv, capture_output=True, check=False, timeout=60, env=clean).returncode == 0


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_has_limits_a_health_check_and_no_privileges(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["logging"]["options"]["max-size"]
    for port in service.get("ports", ()):
        assert re.match(r"\$\{[A-Z_]+:-127\.0\.0\.1:", port), "published on loopback unless somebody says otherwise"


def test_env_example_names_the_variables_that_are_read() -> None:
    names = {line.partition("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line[:60]}
    read = (ROOT / "docker-compose.yml").read_text()
    assert {name for name in names if name.isupper()} - {"COMPOSE_PROFILES"} <= set(re.findall(r"[A-Z_]{4,}", read))


def test_copied_env_example_does_not_set_empty_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TALLYSTREAM_")]:
        monkeypatch.delenv(name)
    before = Settings()
    for line in (ROOT / ".env.example").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and name.isupper():
            monkeypatch.setenv(name, value)
    assert Settings() == before
    assert not Settings().polls_openai


def test_compose_file_contains_no_secrets() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"TOKEN|SECRET|PASSWORD|KEY$", name):
                assert value is None or str(value).startswith("${"), name
