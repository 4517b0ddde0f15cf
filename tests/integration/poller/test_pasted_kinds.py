"""Mappings for Ocean's custom integration: their kinds are polled as their selectors say, page after page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from tallystream.agents.port_sink.mapping import Mapper
from tallystream.agents.port_sink.mapping.polled import resource_of
from tallystream.schemas.errors import UsageError
from tallystream.streams.poller.client import OpenAIClient, OpenAIClientConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.query import fetch_current
from tallystream.streams.poller.resources import Resource

ALL = [{"id": f"m{number}", "name": "x"} for number in range(7)]
NOW = 1_795_219_200.0


@dataclass
class Api:
    """An API with every pagination; it notes what it was asked."""

    url: str = ""
    asked: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append((request.method, request.path, query, await request.text()))
        style = request.match_info["style"]
        size = int(query.get("limit", query.get("per_page", "3")))
        match style:
            case "whole":
                return web.json_response({"members": ALL, "first": ALL[0]})
            case "offset":
                start = int(query.get("offset", "0"))
            case "page":
                start = (int(query["page"]) - 1) * size
            case "teams":
                return web.json_response(
                    {"teams": [{"key": "a/b", "on": True}, {"key": "c", "on": True}, {"key": "d"}]}
                )
            case _:
                start = int(query.get("cursor", query.get("from", "0")))
        page, more = ALL[start : start + size], start + size < len(ALL)
        following = str(start + size) if more else ""
        if style == "link":
            return web.json_response(page, headers={"Link": f'</v1/link?from={following}>; rel="next"'} if more else {})
        if style == "elsewhere":
            return web.json_response(page, headers={"Link": '<https://example.test/v1/next>; rel="next"'})
        if style == "stuck":
            return web.json_response({"members": ALL[:3]})
        body = {"members": page, "meta": {"next": following}}
        host = self.url if start else ""  # both are allowed: a whole URL and one without the host
        link = {"@odata.nextLink": f"{host}/v1/odata?from={following}"} if more else {}
        return web.json_response(body | link)


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Api]:
    one = Api()
    app = web.Application()
    app.router.add_route("*", "/v1/{style}", one.answer)
    app.router.add_route("*", "/v1/{style}/{rest:.*}", one.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield one
    await runner.cleanup()


def mapped(kind: str, **selector: Any) -> Resource:
    entity = {"mappings": {"identifier": ".id", "blueprint": '"model"'}}
    raw = {"resources": [{"kind": kind, "selector": {"query": "true", **selector}, "port": {"entity": entity}}]}
    (found,) = Mapper(yaml.safe_dump(raw)).endpoints.values()
    return resource_of(found)


async def fetched(api: Api, resource: Resource) -> list[dict[str, Any]]:
    config = OpenAIClientConfig(f"{api.url}/v1", attempts=1)
    async with OpenAIClient(config, ApiKeys({"api": ApiKey("sk-pasted")})) as client:
        return await fetch_current(client, resource, NOW)


@pytest.mark.parametrize(
    ("kind", "selector", "requests"),
    [
        ("/whole", {"data_path": ".members"}, 1),
        ("/offset", {"data_path": ".members", "pagination": {"type": "offset", "page_size": 3}}, 3),
        ("/page", {"data_path": ".members", "pagination": {"paginationType": "page", "pageSize": 3,
                                                           "sizeParam": "per_page"}}, 3),
        ("/cursor", {"data_path": ".members", "pagination": {"type": "cursor", "size": 3,
                                                             "cursor_path": "meta.next"}}, 3),
        ("/link", {"pagination": "link_header"}, 3),
        ("/odata", {"data_path": ".members", "pagination": "next_link"}, 3),
        ("models", {"endpoint": "/whole", "data_path": ".members"}, 1),
    ],
)  # fmt: skip
async def test_every_page_is_fetched(api: Api, kind: str, selector: dict[str, Any], requests: int) -> None:
    resource = mapped(kind, **selector)
    assert resource.name == kind
    assert await fetched(api, resource) == ALL
    assert len(api.asked) == requests


async def test_object_answer_is_one_record(api: Api) -> None:
    assert await fetched(api, mapped("/whole", data_path=".first")) == ALL[:1]
    (record,) = await fetched(api, mapped("/whole"))
    assert record.keys() == {"members", "first"}


async def test_parameters_and_post_bodies_of_a_mapping_are_sent(api: Api) -> None:
    params = {"types": "public_channel", "limit": "100", "since": "now - 86400 | todate", "quoted": '"1d"', "all": True}
    body = {"filters": [{"property": "team"}]}
    resource = mapped("/whole", method="POST", body=body, query_params=params, headers={"X-Version": "2"},
                      data_path=".members")  # fmt: skip
    assert await fetched(api, resource) == ALL
    ((method, _, query, sent),) = api.asked
    assert method == "POST"
    assert query == {"types": "public_channel", "limit": "100", "since": "2026-11-20T00:00:00Z", "quoted": "1d",
                     "all": "true"}  # fmt: skip
    assert json.loads(sent) == body


async def test_placeholders_are_filled_from_another_endpoint(api: Api) -> None:
    teams = {"endpoint": "/teams", "data_path": ".teams", "field": ".key", "filter": ".on == true"}
    resource = mapped("/whole/{team}", path_parameters={"team": teams}, data_path=".members")
    rows = await fetched(api, resource)
    assert [path for _, path, _, _ in api.asked] == ["/v1/teams", "/v1/whole/a/b", "/v1/whole/c"]
    assert {row["__team"] for row in rows} == {"a/b", "c"}
    assert len(rows) == 2 * len(ALL)


async def test_broken_pagination_is_an_error(api: Api) -> None:
    for kind, selector, why in (
        ("/stuck", {"data_path": ".members", "pagination": {"type": "page", "size": 3}}, "repeats"),
        ("/elsewhere", {"pagination": "link"}, "example.test"),
    ):
        with pytest.raises(PollError, match=why) as caught:
            await fetched(api, mapped(kind, **selector))
        assert caught.value.why is FailureReason.PAGINATION
    assert not any("example.test" in path for _, path, _, _ in api.asked)


@pytest.mark.parametrize(
    ("kind", "selector", "why"),
    [
        ("/x", {"method": "DELETE"}, "DELETE"),
        ("/x", {"query_parameters": {"a": {}}}, "query_parameters"),
        ("/x", {"pagination": "infinite"}, "infinite"),
        ("/x", {"pagination": {"type": "offset", "speed": 1}}, "speed"),
        ("/x/{a}", {}, "path_parameters"),
        ("/x/{a}/{b}", {}, "more than one"),
        ("/x", {"headers": {"Authorization": "Bearer secret"}}, "Authorization"),
        ("name", {"endpoint": "https://example.test/x"}, "not a path"),
        ("/x", {"data_path": ".a ["}, "data"),
    ],
)
def test_kinds_that_cannot_be_polled_are_reported(kind: str, selector: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        mapped(kind, **selector)
    assert kind in caught.value.message
    assert "secret" not in caught.value.message
