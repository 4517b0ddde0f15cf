"""Settings of the sink: the names on Port's own page, and when it is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystream.agents.port_sink.mapping import default_text
from tallystream.cli.options import settings_from
from tallystream.components.poller import read_resources
from tallystream.components.sink import read_mapper
from tallystream.schemas.errors import UsageError
from tallystream.settings.ocean_ignored import ignored_settings
from tallystream.settings.ocean_names import NAMES, variable
from tallystream.supervisor.specs import plan as plan_of

OWN = """\
resources:
  - kind: {kind}
    port:
      entity:
        mappings:
          identifier: .id
          blueprint: '"own"'
"""


class TestThePagesNames:
    FILE = """
        initializePortResources = false
        scheduledResyncInterval = 30
        sendRawDataExamples = true
        [port]
        clientId = "an id"
        clientSecret = "a secret"
        baseUrl = "https://api.us.getport.io"
        [integration]
        identifier = "codex-integration"
        type = "custom"
        [integration.config]
        baseUrl = "https://example.test/v1"
        authType = "bearer_token"
        apiToken = "sk-token"
        [integration.eventListener]
        type = "POLLING"
    """

    def check(self) -> None:
        settings = settings_from()
        assert (settings.port_client_id, settings.port_secret()) == ("an id", "a secret")
        assert settings.writes_to_port
        assert settings.port_base_url == "https://api.us.getport.io"
        assert settings.port_identifier == "codex-integration"
        assert settings.openai_base_url == "https://example.test/v1"
        assert settings.openai_api_token is not None
        assert settings.openai_api_token.get_secret_value() == "sk-token"
        assert settings.port_initialize is False
        assert settings.port_samples is True
        assert settings.openai_interval.total_seconds() == settings.port_resync.total_seconds() == 1800

    def test_ocean_names_are_read_from_the_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text(self.FILE)
        monkeypatch.setenv("TALLYSTREAM_CONFIG", str(tmp_path / "c.toml"))
        self.check()
        monkeypatch.setenv("TALLYSTREAM_PORT_IDENTIFIER", "ours")
        assert settings_from().port_identifier == "ours"

    def test_ocean_names_are_read_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = {
            "OCEAN__PORT__CLIENT_ID": "an id", "OCEAN__PORT__CLIENT_SECRET": "a secret",
            "OCEAN__PORT__BASE_URL": "https://api.us.getport.io", "OCEAN__INTEGRATION__IDENTIFIER": "codex-integration",
            "OCEAN__INTEGRATION__TYPE": "custom", "OCEAN__INTEGRATION__CONFIG__BASE_URL": "https://example.test/v1",
            "OCEAN__INTEGRATION__CONFIG__AUTH_TYPE": "bearer_token",
            "OCEAN__INTEGRATION__CONFIG__API_TOKEN": "sk-token",
            "OCEAN__EVENT_LISTENER__TYPE": "POLLING", "OCEAN__INITIALIZE_PORT_RESOURCES": "false",
            "OCEAN__SCHEDULED_RESYNC_INTERVAL": "30", "OCEAN__SEND_RAW_DATA_EXAMPLES": "true",
        }  # fmt: skip
        assert {variable(name) for name in NAMES} <= values.keys() | {"OCEAN__INTEGRATION__EVENT_LISTENER__TYPE"}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        self.check()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OCEAN__INTEGRATION__TYPE", "codex"),
            ("OCEAN__EVENT_LISTENER__TYPE", "KAFKA"),
            ("OCEAN__INTEGRATION__CONFIG__AUTH_TYPE", "basic"),
            ("OCEAN__SCHEDULED_RESYNC_INTERVAL", "soon"),
        ],
    )
    def test_unsupported_values_are_reported(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(UsageError):
            settings_from()

    def test_unknown_names_are_reported(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text('[port]\nclientid = "x"\n')
        monkeypatch.setenv("TALLYSTREAM_CONFIG", str(tmp_path / "c.toml"))
        with pytest.raises(UsageError, match=r"port\.clientid"):
            settings_from()


def test_ocean_variables_without_effect_are_reported() -> None:
    given = {
        "OCEAN__PORT__CLIENT_ID": "id",
        "OCEAN__EVENT_LISTENER": '{"type": "POLLING"}',
        "OCEAN__INTEGRATION__CONFIG__PAGINATION_TYPE": "offset",
        "OCEAN__NO_SUCH": "1",
        "OTHER": "1",
    }
    found = {one.name: one.hint for one in ignored_settings(given)}
    assert found.keys() == {"OCEAN__INTEGRATION__CONFIG__PAGINATION_TYPE", "OCEAN__NO_SUCH"}
    assert "selector.pagination" in found["OCEAN__INTEGRATION__CONFIG__PAGINATION_TYPE"]


def test_event_listener_can_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCEAN__EVENT_LISTENER", '{"type": "POLLING", "interval": 1800}')
    assert settings_from().openai_interval.total_seconds() == 1800
    for wrong in ('{"type": "KAFKA"}', "POLLING", '{"type": "POLLING", "interval": "soon"}'):
        monkeypatch.setenv("OCEAN__EVENT_LISTENER", wrong)
        with pytest.raises(UsageError):
            settings_from()


def test_mapping_can_be_several_files_and_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    for name, kind in (("b.yaml", "/b"), ("a.yml", "/a"), ("notes.txt", "/no")):
        (folder / name).write_text(OWN.format(kind=kind))
    (tmp_path / "one, two.yaml").write_text(OWN.format(kind="/c"))
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", f"{folder}")
    assert read_mapper(settings_from(tmp_path)).kinds == ("/a", "/b")
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", f"default, {folder}")
    kinds = read_mapper(settings_from(tmp_path)).kinds
    assert kinds[-2:] == ("/a", "/b")
    assert "session" in kinds
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", str(tmp_path / "one, two.yaml"))
    assert read_mapper(settings_from(tmp_path)).kinds == ("/c",)
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", "default,no-such.yaml")
    with pytest.raises(UsageError, match=r"no-such.yaml"):
        read_mapper(settings_from(tmp_path))


def test_poller_polls_endpoints_that_only_the_mapping_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN.format(kind="/own") + OWN.format(kind="/usage").replace("resources:\n", ""))
    (tmp_path / "less.toml").write_text('disable = ["/usage"]')
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", f"default,{tmp_path / 'own.yaml'}")
    monkeypatch.setenv("TALLYSTREAM_OPENAI_RESOURCES", str(tmp_path / "less.toml"))
    names = [one.name for one in read_resources(settings_from(tmp_path))[0].resources]
    assert names.count("/own") == 1
    assert "/usage" not in names, "it is disabled, and a mapping does not bring it back"
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", str(tmp_path / "no-such.yaml"))
    assert "/own" not in [one.name for one in read_resources(settings_from(tmp_path))[0].resources], (
        "the sink reports it"
    )


def test_up_starts_a_sink_when_there_are_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def names() -> list[str]:
        return [spec.name for spec in plan_of(settings_from(tmp_path), port=1, workers=1, embedded_port=2).specs]

    assert "sink" not in names()
    monkeypatch.setenv("TALLYSTREAM_PORT_CLIENT_ID", "id")
    assert "sink" not in names()
    monkeypatch.setenv("TALLYSTREAM_PORT_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    assert "sink" in names()


def test_session_hours_are_off_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "session-hour" not in read_mapper(settings_from(tmp_path)).kinds
    monkeypatch.setenv("TALLYSTREAM_PORT_SESSION_HOURS", "true")
    assert "session-hour" in read_mapper(settings_from(tmp_path)).kinds
    monkeypatch.delenv("TALLYSTREAM_PORT_SESSION_HOURS")
    (tmp_path / "own.yaml").write_text(default_text())
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", str(tmp_path / "own.yaml"))
    assert "session-hour" in read_mapper(settings_from(tmp_path)).kinds
