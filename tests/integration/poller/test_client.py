"""One request over real HTTP: what is retried, what is not, and which errors are reported."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.waiting import ANSWER

from tallystream.agents.port_sink.errors import PortError
from tallystream.agents.port_sink.port.client import PortClient, PortClientConfig
from tallystream.sandbox import Fault, Sandbox, SandboxConfig
from tallystream.schemas.errors import UsageError
from tallystream.streams.poller.client import OpenAIClient, OpenAIClientConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.errors import FailureReason, PollError

KEYS = ApiKeys({"api": ApiKey("sk-sandbox-0123456789")})


class Naps:
    """Does not sleep, but remembers the requested durations."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(SandboxConfig())
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


@pytest.fixture
def config(sandbox: Sandbox) -> OpenAIClientConfig:
    return OpenAIClientConfig(sandbox.url + "/openai/v1", timeout=ANSWER, attempts=3, first_wait=0.5)


async def failure(client: OpenAIClient, path: str = "/models", key: str = "api") -> PollError:
    with pytest.raises(PollError) as caught:
        await client.get(path, [], key)
    return caught.value


async def test_429_is_retried_after_the_time_in_retry_after(sandbox: Sandbox, config: OpenAIClientConfig) -> None:
    naps = Naps()
    retried: list[FailureReason] = []
    sandbox.faults.add(Fault(kind="status", status=429, retry_after=17, times=2))
    async with OpenAIClient(config, KEYS, sleep=naps, retried=retried.append) as client:
        assert (await client.get("/models", []))["object"] == "list"
    assert [17 <= nap < 18 for nap in naps.taken] == [True, True]
    assert retried == [FailureReason.RATE_LIMITED, FailureReason.RATE_LIMITED]


async def test_long_retry_after_is_not_waited_for(sandbox: Sandbox, config: OpenAIClientConfig) -> None:
    naps = Naps()
    sandbox.faults.add(Fault(kind="status", status=429, retry_after=7200))
    async with OpenAIClient(config, KEYS, sleep=naps) as client:
        assert (await failure(client)).why == FailureReason.RATE_LIMITED
    assert naps.taken == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(kind="status", status=503), FailureReason.SERVER_ERROR),
        (Fault(kind="hang", seconds=9), FailureReason.TIMEOUT),
        (Fault(kind="reset"), FailureReason.CONNECTION),
        (Fault(kind="truncate"), FailureReason.CONNECTION),
    ],
)
async def test_transient_errors_are_retried_a_limited_number_of_times(
    sandbox: Sandbox, config: OpenAIClientConfig, fault: Fault, why: FailureReason
) -> None:
    naps = Naps()
    sandbox.faults.add(fault)
    if why is FailureReason.TIMEOUT:
        config = replace(config, timeout=0.3)
    async with OpenAIClient(config, KEYS, sleep=naps) as client:
        assert (await failure(client)).why == why
    assert len(naps.taken) == 2
    assert 0.25 <= naps.taken[0] <= 0.5 <= naps.taken[1] <= 1.0
    # aiohttp itself retries once if a kept connection turns out to be closed.
    assert 3 <= sandbox.faults.state()[0]["hit"] <= 6


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(kind="status", status=400), FailureReason.REJECTED),
        (Fault(kind="status", status=404), FailureReason.NOT_FOUND),
        (Fault(kind="half"), FailureReason.UNDECODABLE),
    ],
)
async def test_permanent_errors_are_not_retried(
    sandbox: Sandbox, config: OpenAIClientConfig, fault: Fault, why: FailureReason
) -> None:
    sandbox.faults.add(fault)
    async with OpenAIClient(config, KEYS, sleep=Naps()) as client:
        assert (await failure(client)).why == why
    assert sandbox.faults.state()[0]["hit"] == 1


@pytest.mark.parametrize(
    ("token", "path", "key", "why", "says"),
    [
        (
            "sk-user-0123456789",
            "/organization/costs",
            "admin",
            FailureReason.FORBIDDEN,
            "TALLYSTREAM_OPENAI_ADMIN_TOKEN",
        ),
        ("sk-user-0123456789", "/dashboard/billing/usage", "session", FailureReason.UNAUTHORISED, "SESSION_TOKEN"),
        ("wrong-0123456789", "/models", "api", FailureReason.UNAUTHORISED, "TALLYSTREAM_OPENAI_API_TOKEN"),
    ],
)
async def test_refusal_names_the_required_kind_of_key_and_not_the_key(
    config: OpenAIClientConfig, token: str, path: str, key: str, why: FailureReason, says: str
) -> None:
    async with OpenAIClient(config, ApiKeys({"api": ApiKey(token)})) as client:
        refused = await failure(client, path, key)
    assert refused.why == why
    assert says in refused.hint
    assert token not in refused.message + refused.hint


async def test_too_large_answer_is_not_buffered(config: OpenAIClientConfig) -> None:
    async with OpenAIClient(replace(config, max_bytes=100), KEYS) as client:
        assert (await failure(client)).why == FailureReason.TOO_LARGE


async def test_key_is_not_sent_to_a_redirect_target() -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound("/elsewhere")

    app = web.Application()
    app.router.add_get("/{path:.*}", elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with OpenAIClient(OpenAIClientConfig(f"http://127.0.0.1:{runner.addresses[0][1]}"), KEYS) as client:
            assert (await failure(client)).why == FailureReason.REJECTED
    finally:
        await runner.cleanup()
    assert asked == ["/models"]


async def test_headers_name_the_organisation_and_a_proxy_is_used() -> None:
    seen: list[tuple[str, str, str | None, str | None]] = []

    async def proxy(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append(
            (request.method, str(request.url), headers.get("OpenAI-Organization"), headers.get("OpenAI-Project"))
        )
        return web.json_response({"object": "list", "data": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", proxy)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = OpenAIClientConfig(
        "http://openai.invalid/v1", organization="org-1", project="proj-2",
        proxy=f"http://127.0.0.1:{runner.addresses[0][1]}",
    )  # fmt: skip
    try:
        async with OpenAIClient(config, KEYS) as client:
            assert await client.get("/models", []) == {"object": "list", "data": []}
    finally:
        await runner.cleanup()
    assert seen == [("GET", "http://openai.invalid/v1/models", "org-1", "proj-2")]


async def test_refused_connection_is_an_error_with_a_next_step() -> None:
    async with OpenAIClient(OpenAIClientConfig("http://127.0.0.1:9", attempts=2), KEYS, sleep=Naps()) as client:
        refused = await failure(client)
    assert refused.why == FailureReason.CONNECTION
    assert refused.hint


def test_invalid_ca_file_prevents_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(UsageError, match="CA file"):
            OpenAIClient(OpenAIClientConfig(ca=tmp_path / name), KEYS)
    assert isinstance(OpenAIClientConfig().ssl_context(), ssl.SSLContext)


@pytest.mark.parametrize("status", [200, 302, 403, 502])
async def test_web_page_instead_of_an_answer_is_reported_as_such(status: int) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(status=status, text="\n<!doctype html><title>Sign in</title>", content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with OpenAIClient(OpenAIClientConfig(url, attempts=1), KEYS) as client:
            refused = await failure(client)
            assert "a login page or proxy answered" in refused.message
            assert status != 200 or "is 127.0.0.1 (or the proxy) reachable" in refused.hint
        async with PortClient(PortClientConfig("id", "secret", url)) as port:
            with pytest.raises(PortError, match="a login page or proxy answered"):
                await port.tokens.get()
    finally:
        await runner.cleanup()
