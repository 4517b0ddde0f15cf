"""The ops port: names from clients must not control the terminal of whoever reads the metrics."""

from __future__ import annotations

import aiohttp
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from tallystream.streams.service.ops import Health, OpsServer


async def test_metrics_page_contains_no_terminal_escapes() -> None:
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests.", ["model"], registry=registry)
    counter.labels('a\x1b[31m\x9b"\n\\\x00é').inc()
    server = OpsServer(lambda: Health(True), lambda: Health(True), registry=registry)
    await server.listen()
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as answer:
            page = (await answer.read()).decode()
    finally:
        await server.stop()
    assert all(line.isprintable() for line in page.split("\n"))
    (family,) = (one for one in text_string_to_metric_families(page) if one.name == "requests")
    assert family.samples[0].labels["model"] == 'a\\x1b[31m\\x9b"\n\\\\x00é'
