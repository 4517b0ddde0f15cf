"""Sessions relate to Port's teams and services, and those show what they spent."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
from tests.integration.port_sink.test_commands import at, run
from tests.support.port_rig import SESSION, Rig, make_row, rig, sink
from tests.support.waiting import until

from tallystream.sandbox import Fault
from tallystream.sandbox.port_store import How
from tallystream.streams.kafka.settings import KafkaSettings

NOW = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
SCORECARD = "scorecard coding_agent_bill_explained"
HOUR, LONG_AGO = "2026-11-21T13:00:00Z", "2026-08-21T13:00:00Z"
SERVICE: dict[str, Any] = {
    "identifier": "service", "title": "Service", "schema": {"properties": {}, "required": []}, "relations": {},
}  # fmt: skip


def add(one: Rig, blueprint: str, *names: str) -> None:
    for name in names:
        one.sandbox.store.write(blueprint, {"identifier": name}, How(upsert=True), "me", NOW)


def related(one: Rig, relation: str) -> dict[str, str | None]:
    return {name.rpartition(":")[2]: found["relations"].get(relation) for name, found in one.entities(SESSION).items()}


async def shown(one: Rig, blueprint: str, name: str) -> dict[str, Any]:
    """Return an entity's properties as Port's API gives them."""
    async with aiohttp.ClientSession() as session:
        api = f"{one.sandbox.url}/port/v1"
        async with session.post(f"{api}/auth/access_token", json={"clientId": "a", "clientSecret": "b"}) as answer:
            token = (await answer.json())["accessToken"]
        headers = {"Authorization": f"Bearer {token}"}
        async with session.get(f"{api}/blueprints/{blueprint}/entities/{name}", headers=headers) as answer:
            properties: dict[str, Any] = (await answer.json())["entity"]["properties"]
            return properties


def expected(rows: list[dict[str, Any]]) -> dict[str, float]:
    buckets = [bucket for row in rows for bucket in row["buckets"]]
    spent = sum((Decimal(bucket["cost_usd"] or 0) for bucket in buckets), Decimal(0))
    return {
        "coding_agent_spend_last_month": round(float(spent), 6),
        "coding_agent_tokens_last_month": float(sum(bucket["total_tokens"] for bucket in buckets)),
        "coding_agent_sessions_last_month": len(rows),
    }


async def test_sessions_relate_to_existing_owners_which_show_their_spend(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(21)
    async with rig(kafka, prefix, people=True, now=NOW) as one:
        here = at(one.sandbox)
        one.sandbox.store.create_blueprint(SERVICE, "me", NOW)
        add(one, "_team", "platform")
        add(one, "service", "app")

        found = json.loads(await run("port", "apply", "--check", "--json", code=4, **here))
        assert found["applied"] is False
        named = {difference["blueprint"] for difference in found["differences"]}
        assert named >= {SESSION, "_team", "_user", "service", "page coding_agent_costs", SCORECARD}
        assert "add --yes" in await run("port", "apply", "--json", code=2, **here)
        await run("port", "apply", code=130, stdin="n\n", **here)
        assert not one.entities("openai_model")
        assert "applied" in await run("port", "apply", "--yes", **here)
        assert "includes everything" in await run("port", "apply", "--check", **here)
        (page,) = one.sandbox.port.pages.all()
        assert len(page["widgets"][0]["widgets"]) == 9
        (scorecard,) = one.sandbox.port.scorecards.of("coding_agent_bill_day")
        scorecard["rules"][0] |= {"identifier": "own"}
        assert "rules.billed" in await run("port", "apply", "--yes", **here)
        (scorecard,) = one.sandbox.port.scorecards.of("coding_agent_bill_day")
        assert [rule["identifier"] for rule in scorecard["rules"]] == ["own", "seen", "priced", "billed"]

        rows = [make_row(rng, f"s{number}", HOUR, 1) for number in range(12)]
        for number, row in enumerate(rows):
            for bucket in row["buckets"]:
                bucket["attribution"] |= {
                    "team": ("platform", "search", None)[number % 3],
                    "user": "u_0123456789abcdef",
                }
        old = make_row(rng, "old", LONG_AGO, 1)
        for bucket in old["buckets"]:
            bucket["attribution"]["team"] = "platform"
        await one.rows(*rows, old)
        # What cannot be read just now holds nothing up: sessions are written, and related later.
        one.sandbox.faults.add(Fault(match="_user/entities/search", kind="status", status=403, times=1))
        with sink(one, tmp_path, TALLYSTREAM_PORT_RESYNC="PT2S") as running:
            await until(lambda: len(one.entities(SESSION)) == 13, "all sessions are in Port")
            await until(running.idle, "they are related")
            assert {related(one, "port_team")[f"s{number}"] for number in range(0, 12, 3)} == {"platform"}
            assert {name for name, team in related(one, "port_team").items() if team} == {"s0", "s3", "s6", "s9", "old"}
            assert set(related(one, "port_user").values()) == {None}
            assert set(related(one, "port_service").values()) == {"app"}

            add(one, "_team", "search")
            await until(
                lambda: {related(one, "port_team")[f"s{number}"] for number in range(1, 12, 3)} == {"search"},
                "sessions relate to a team that Port has got",
            )
            assert "owners_not_read" in running.said()
        assert not await one.letters()
        assert one.entities("_team").keys() == {"platform", "search"}, "no team is created"
        assert not one.entities("_user")
        for team, own in (("platform", rows[0::3]), ("search", rows[1::3])):
            assert {
                key: round(float(value), 6) for key, value in (await shown(one, "_team", team)).items()
            } == expected(own)
        assert (await shown(one, "service", "app"))["coding_agent_sessions_last_month"] == 12


async def test_ownership_can_be_turned_off_and_older_accounts_go_without(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(22)
    async with rig(kafka, prefix, people=True, now=NOW) as one:
        add(one, "_team", "platform", "search")
        await one.rows(*(make_row(rng, f"s{number}", HOUR, 1) for number in range(3)))
        with sink(one, tmp_path, TALLYSTREAM_PORT_OWNERSHIP="false"):
            await until(lambda: len(one.entities(SESSION)) == 3, "sessions are written")
        assert one.sandbox.store.blueprint(SESSION)["relations"].keys() == {"connection", "models"}
        assert not one.wrong_sessions()
        off = at(one.sandbox, TALLYSTREAM_PORT_OWNERSHIP="false")
        found = json.loads(await run("port", "apply", "--check", "--json", code=4, **off))
        named = {difference["blueprint"] for difference in found["differences"]}
        assert named == {"page coding_agent_costs", SCORECARD}
        await run("port", "apply", "--yes", **off)
        assert len(one.sandbox.port.pages.all()[0]["widgets"][0]["widgets"]) == 7

        # With it on, an account without services gets the rest, and the page its missing widget.
        said = await run("port", "apply", "--yes", **at(one.sandbox))
        assert "Left out, because Port has no such blueprint: service" in said
        assert one.sandbox.store.blueprint(SESSION)["relations"].keys() == {
            "connection", "models", "port_team", "port_user",
        }  # fmt: skip
        assert len(one.sandbox.port.pages.all()[0]["widgets"][0]["widgets"]) == 8
