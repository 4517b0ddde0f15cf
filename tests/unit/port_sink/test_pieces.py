"""Pace, tokens, doubts, backlog, blueprints beside Port's, names of the page: each by itself, with a clock of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.blueprints import sync
from tallystream.agents.port_sink.mapping import default_text
from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.agents.port_sink.pipeline.backlog import Backlog, Waiting
from tallystream.agents.port_sink.port.client import PortClientConfig
from tallystream.agents.port_sink.port.rate import RateLimiter
from tallystream.agents.port_sink.port.token import AccessTokens
from tallystream.agents.port_sink.state.in_doubt import MARGIN_MS, InDoubt
from tallystream.cli.options import settings_from
from tallystream.components.sink import read_mapper
from tallystream.sandbox.contract import Contract
from tallystream.schemas.errors import UsageError
from tallystream.schemas.port import PlannedEntity, PlannedRequest, PortSource
from tallystream.settings.ocean_names import NAMES, variable
from tallystream.supervisor.specs import plan as plan_of


class Clock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now_ns(self) -> int:
        return int((1_700_000_000 + self.at) * 1e9)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.at += seconds


def said(clock: Clock, limit: int, remaining: int, left: float = 300.0) -> dict[str, str]:
    return {
        "x-ratelimit-limit": str(limit), "x-ratelimit-period": "300", "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": str(clock.now_ns() / 1e9 + left),
    }  # fmt: skip


class TestPace:
    async def test_a_limit_is_never_met_however_much_there_is_to_send(self) -> None:
        """A bucket as Port has one: a burst of 20, filled at the limit's rate; each call is counted in it."""
        clock = Clock()
        limiter = RateLimiter(clock, clock.sleep)
        limit, burst = 3_000, 20
        tokens, filled, began, used = float(burst), clock.at, clock.at, 0
        for _ in range(4_000):
            await limiter.wait()
            tokens = min(burst, tokens + (clock.at - filled) * limit / 300)
            filled = clock.at
            if clock.at - began >= 300:
                began, used = clock.at, 0
            assert tokens >= 1, "throttled"
            assert used < limit, "throttled"
            tokens, used = tokens - 1, used + 1
            limiter.observe(said(clock, limit, limit - used, 300 - (clock.at - began)))
        assert clock.at - 1_000 < 4_000 / (limit / 300) * 1.25, "and little of it is left unused"

    async def test_it_makes_room_when_others_use_the_limit_up(self) -> None:
        clock = Clock()
        limiter = RateLimiter(clock, clock.sleep)
        limiter.observe(said(clock, 35_000, 34_000))
        assert limiter.rate > 90
        limiter.observe(said(clock, 35_000, 300, 100.0))
        assert 2 < limiter.rate <= 3

    async def test_a_429_stops_everybody_for_as_long_as_port_says(self) -> None:
        clock = Clock()
        limiter = RateLimiter(clock, clock.sleep)
        limiter.throttled({}, 7.0, 0)
        await limiter.wait()
        assert clock.at >= 1_007
        before = clock.at
        limiter.throttled(said(clock, 100, 0, 42.0), None, 0)
        await limiter.wait()
        assert clock.at - before >= 42
        before = clock.at
        limiter.throttled({}, None, 3)
        await limiter.wait()
        assert clock.at - before >= 8

    def test_headers_that_say_nothing_change_nothing(self) -> None:
        clock = Clock()
        limiter = RateLimiter(clock, clock.sleep)
        for headers in ({}, {"x-ratelimit-limit": "many"}, said(clock, 0, 0)):
            limiter.observe(headers)
        assert limiter.rate == 5


async def test_a_token_is_renewed_ahead_of_its_end_and_when_it_is_refused() -> None:
    clock, asked = Clock(), 0

    async def ask() -> tuple[str, float]:
        nonlocal asked
        asked += 1
        return f"token {asked}", 10_800.0

    tokens = AccessTokens(ask, clock)
    first = await tokens.get()
    clock.at += 10_400
    assert await tokens.get() is first
    clock.at += 200  # 200 s before its end
    second = await tokens.get()
    assert (second.text, asked) == ("token 2", 2)
    assert "token 2" not in repr(second)
    tokens.refused(first)
    assert await tokens.get() is second, "what is refused is the old one"
    tokens.refused(second)
    assert (await tokens.get()).text == "token 3"
    assert tokens.longest == 10_800


def plan(until_ms: int = 0) -> PlannedRequest:
    entity = PlannedEntity(blueprint="b", identifier="i", source=PortSource(kind="session", key="k"))
    return PlannedRequest(writer="0" * 12, slot=1, until_ms=until_ms, entities=[entity])


class TestDoubts:
    KEY = EntityKey("b", "i")

    def test_what_another_sink_planned_is_sent_until_its_token_has_expired(self) -> None:
        in_doubt, sent = InDoubt(), []
        in_doubt.add_foreign(plan(10_000_000), 0, 8_000)
        for now in range(0, 10_200_000, 1_000):
            assert in_doubt.soon == (2 if now == 0 else 1 if now <= 8_000 else 0), "the last one is hours away"
            if in_doubt.due(now):
                sent.append(now)
                assert not in_doubt.settled(now), "not before it has been sent"
                assert self.KEY in in_doubt.forced
                in_doubt.forced.discard(self.KEY)
        assert sent == [0, 8_000, 10_000_000 + MARGIN_MS]
        assert [one.slot for one in in_doubt.settled(10_200_000)] == [1]
        assert not in_doubt.settled(10_200_000)

    def test_a_request_of_ours_is_doubted_once(self) -> None:
        in_doubt = InDoubt()
        in_doubt.add(plan(), 5_000)
        assert in_doubt.soon == 1
        assert not in_doubt.due(4_999)
        assert [doubt.entity for doubt in in_doubt.due(5_000)] == [self.KEY]
        assert not in_doubt.due(6_000)
        assert not in_doubt.settled(6_000)
        in_doubt.forced.clear()
        assert in_doubt.settled(6_000)
        assert len(in_doubt) == 0


def test_news_go_before_sweeps_and_nothing_is_in_it_twice() -> None:
    backlog = Backlog(["connection", "session"])
    backlog.resync("connection", [b"c1", b"c2"], 10)
    backlog.add("session", b"s1", 20)
    backlog.add("session", b"s1", 30)
    backlog.again("session", b"s1", 5)
    assert (len(backlog), backlog.since_ms()) == (3, 10)
    assert backlog.take(5) == ("session", [(b"s1", Waiting(20, 20))])
    assert len(backlog) == 3, "what was taken is not mapped yet"
    assert backlog.take(1) == ("connection", [(b"c1", Waiting(10, None))])
    assert backlog.take(1) == ("connection", [(b"c2", Waiting(10, None))])
    backlog.mapped()
    assert len(backlog) == 0
    backlog.again("session", b"s2", 40)
    backlog.add("session", b"s2", 30)
    assert backlog.take(1) == ("session", [(b"s2", Waiting(40, 30))]), (
        "a change is one, though it was to be sent anyway"
    )
    assert backlog.take(1) is None


class TestBlueprints:
    def test_port_takes_every_one_of_them_in_this_order(self) -> None:
        found = Contract("port").find("POST", "/v1/blueprints")
        assert found is not None
        made: set[str] = set()
        for name, blueprint in blueprints.load(session_hours=True).items():
            assert found[0].body_problems(blueprint) == []
            assert blueprints.targets(blueprint) <= made
            made.add(name)
        assert len(made) == 7
        assert blueprints.SESSION_HOUR not in blueprints.load()

    def test_as_printed_ports_own_schema_refuses_the_dates(self) -> None:
        found = Contract("port").find("POST", "/v1/blueprints")
        assert found is not None
        usage = blueprints.load()["openai_daily_usage"]
        usage["schema"]["properties"]["date"]["format"] = "date"
        assert found[0].body_problems(usage)

    def test_applying_leaves_nothing_to_apply_and_takes_nothing_away(self) -> None:
        ours = blueprints.load()
        theirs: dict[str, Any] = {
            "coding_agent_session": {
                "identifier": "coding_agent_session", "title": "Mine", "createdAt": "then",
                "schema": {
                    "properties": {"cost_usd": {"type": "string", "title": "Cost"}, "own": {"type": "number"}},
                    "required": ["own"],
                },
                "relations": {"service": {"target": "service", "required": False, "many": False}},
            }
        }  # fmt: skip
        found = sync.differences(ours, theirs)
        assert {one.blueprint for one in found if one.what == "missing"} == ours.keys() - theirs.keys()
        changed = {one.path: one.ours for one in found if one.what == "changed"}
        assert changed["schema.properties.cost_usd.type"] == "number"
        assert changed["schema.required"] == ["session_id", "client", "own"]
        assert "relations.models" in {one.path for one in found if one.what == "added"}
        merged = {name: sync.merge(one, theirs.get(name, {})) for name, one in ours.items()}
        assert sync.differences(ours, merged) == []
        session = merged["coding_agent_session"]
        assert session["schema"]["properties"]["own"] == {"type": "number"}
        assert session["relations"]["service"]["target"] == "service"

    def test_a_real_validator_agrees_that_they_are_schemas(self) -> None:
        for blueprint in blueprints.load(session_hours=True).values():
            rules = {name: {"type": rule["type"]} for name, rule in blueprint["schema"]["properties"].items()}
            jsonschema_rs.Draft202012Validator({"properties": rules})


@given(st.sampled_from(["https://api.getport.io", "https://api.getport.io/", "https://api.getport.io/v1/"]))
def test_the_base_url_may_have_the_version_or_not(url: str) -> None:
    config = PortClientConfig("id", "the-secret", base_url=url)
    assert config.url == "https://api.getport.io/v1"
    assert "the-secret" not in repr(config)


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

    def test_in_the_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text(self.FILE)
        monkeypatch.setenv("TALLYSTREAM_CONFIG", str(tmp_path / "c.toml"))
        self.check()
        monkeypatch.setenv("TALLYSTREAM_PORT_IDENTIFIER", "ours")
        assert settings_from().port_identifier == "ours"

    def test_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
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
    def test_what_cannot_be_carried_out_is_said(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(UsageError):
            settings_from()

    def test_a_name_the_page_does_not_have_is_said(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text('[port]\nclientid = "x"\n')
        monkeypatch.setenv("TALLYSTREAM_CONFIG", str(tmp_path / "c.toml"))
        with pytest.raises(UsageError, match=r"port\.clientid"):
            settings_from()


def test_up_starts_a_sink_when_there_are_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def names() -> list[str]:
        return [spec.name for spec in plan_of(settings_from(tmp_path), port=1, workers=1, embedded_port=2).specs]

    assert "sink" not in names()
    monkeypatch.setenv("TALLYSTREAM_PORT_CLIENT_ID", "id")
    assert "sink" not in names()
    monkeypatch.setenv("TALLYSTREAM_PORT_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    assert "sink" in names()


def test_session_hours_are_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "session-hour" not in read_mapper(settings_from(tmp_path)).kinds
    monkeypatch.setenv("TALLYSTREAM_PORT_SESSION_HOURS", "true")
    assert "session-hour" in read_mapper(settings_from(tmp_path)).kinds
    monkeypatch.delenv("TALLYSTREAM_PORT_SESSION_HOURS")
    (tmp_path / "own.yaml").write_text(default_text())
    monkeypatch.setenv("TALLYSTREAM_PORT_MAPPING", str(tmp_path / "own.yaml"))
    assert "session-hour" in read_mapper(settings_from(tmp_path)).kinds
