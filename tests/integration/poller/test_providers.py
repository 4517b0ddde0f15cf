"""Providers of a user's own: each is asked at its base URL, with its key as it wants it, and with nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from tests.support.openai_rig import rig

from tallystream.cli.options import settings_from
from tallystream.components.poller import poller_config, read_resources
from tallystream.schemas.errors import UsageError
from tallystream.schemas.openai import OpenAIRecord
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.resources import load

pytestmark = pytest.mark.kafka
FILE = """
[[providers]]
name = "acme"
base_url = "{url}/acme"
auth = "api_key"
header = "X-Acme-Key"
key_file = "{folder}/acme.key"
headers = {{ "Acme-Version" = "2" }}

[[providers]]
name = "basic"
base_url = "{url}/basic"
auth = "basic"
username = "ada"
key_file = "{folder}/basic.key"

[[providers]]
name = "bearer"
base_url = "{url}/bearer"
key_file = "{folder}/bearer.key"

[[providers]]
name = "open"
base_url = "{url}/open"
auth = "none"

[[resources]]
path = "/usage"
name = "/acme/usage"
provider = "acme"

[[resources]]
path = "/spend"
provider = "basic"

[[resources]]
path = "/tokens"
provider = "bearer"

[[resources]]
path = "/prices"
provider = "open"
"""
ONE = '[[providers]]\nname = "a"\nbase_url = "https://a.test"\nkey_file = "k"\n'


async def test_each_provider_gets_its_own_key(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, dict[str, str]] = {}

    async def answer(request: web.Request) -> web.Response:
        asked[request.path] = dict(request.headers)
        return web.json_response({"data": [{"path": request.path}]})

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        (tmp_path / "more.toml").write_text(FILE.format(url=url, folder=tmp_path))
        (tmp_path / "acme.key").write_text("acme-secret\n")
        (tmp_path / "basic.key").write_text("basic-secret\n")
        (tmp_path / "bearer.key").write_text("bearer-secret\n")
        monkeypatch.setenv("TALLYSTREAM_OPENAI_RESOURCES", str(tmp_path / "more.toml"))
        monkeypatch.setenv("TALLYSTREAM_OPENAI_API_TOKEN", "sk-openai")
        settings = settings_from(tmp_path)
        config = poller_config(settings, kafka)
        names = {"/acme/usage", "/spend", "/tokens", "/prices"}
        async with rig(kafka, prefix) as one:
            own = tuple(resource for resource in config.resources if resource.name in names)
            result = await one.poll(resources=own, tokens=config.tokens, providers=config.providers)
            assert result.failures == {}
            records = await one.messages(one.topics.openai_records.name)
        found = {
            record.resource: record.rows for _, value in records for record in [OpenAIRecord.model_validate_json(value)]
        }
        assert found == {"/acme/usage": [{"path": "/acme/usage"}], "/spend": [{"path": "/basic/spend"}],
                         "/tokens": [{"path": "/bearer/tokens"}], "/prices": [{"path": "/open/prices"}]}  # fmt: skip
        acme, basic, nothing = asked["/acme/usage"], asked["/basic/spend"], asked["/open/prices"]
        assert (acme["X-Acme-Key"], acme["Acme-Version"]) == ("acme-secret", "2")
        assert basic["Authorization"] == "Basic YWRhOmJhc2ljLXNlY3JldA=="
        assert asked["/bearer/tokens"]["Authorization"] == "Bearer bearer-secret"
        assert "Authorization" not in acme
        assert "Authorization" not in nothing
        assert "sk-openai" not in str(asked)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[providers]]\nname = "a"\nbase_url = "https://a.test"', "key_file"),
        ('[[providers]]\nname = "admin"\nbase_url = "https://a.test"\nkey_file = "k"', "taken"),
        ('[[providers]]\nname = "a"\nbase_url = "https://a.test"\nkey_file = "k"\nauth = "basic"', "username"),
        ('[[providers]]\nname = "a"\nbase_url = "https://u:p@a.test"\nkey_file = "k"', "base_url"),
        ('[[providers]]\nname = "a"\nbase_url = "https://a.test"\nkey_file = "k"\nheaders = {Cookie = "x"}', "Cookie"),
        ('[[resources]]\npath = "/x"\nprovider = "a"', "no file declares"),
        (f'{ONE}[[resources]]\npath = "/models"\nprovider = "a"', "name of a built-in"),
    ],
)  # fmt: skip
def test_mistakes_in_provider_files_are_reported(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UsageError, match=why):
        load(tmp_path / "own.toml")


def test_own_provider_needs_no_openai_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text(f'{ONE}[[resources]]\npath = "/x"\nprovider = "a"')
    monkeypatch.setenv("TALLYSTREAM_OPENAI_RESOURCES", str(tmp_path))
    declared, problems = read_resources(settings_from(tmp_path))
    assert problems == ()
    assert [one.name for one in declared.resources if one.provider] == ["/x"]
    config = poller_config(settings_from(tmp_path), KafkaSettings("127.0.0.1:1"))
    assert [one.name for one in config.resources] == ["/x"]
