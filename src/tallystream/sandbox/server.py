"""Serves both APIs and the controls for tests on one port."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from tallystream.sandbox import anthropic_api, openai_api, port_api
from tallystream.sandbox.admin import routes
from tallystream.sandbox.billed import Bill
from tallystream.sandbox.contract import Contract, SpecOperation
from tallystream.sandbox.faults import Fault, Faults
from tallystream.sandbox.limits import RateLimits
from tallystream.sandbox.openai_billing import OpenAIBilling
from tallystream.sandbox.openai_data import FromTruth, Seeded
from tallystream.sandbox.port_store import Store
from tallystream.sandbox.reply import Reply, SandboxCall
from tallystream.schemas import exact
from tallystream.schemas.errors import InvalidBodyError, UsageError
from tallystream.streams.service.clock import Clock, SystemClock

OPENAI, ANTHROPIC, PORT = "/openai/v1", "/anthropic/v1", "/port"
REMEMBERED = 10_000
OPENAI_LIMIT = (3_000, 600)
"""Calls in 300 s, and the burst. OpenAI documents no limit; a well-behaved client never reaches this one."""


@dataclass(frozen=True)
class SandboxConfig:
    """`now` freezes the APIs' clock (seconds since the epoch); `credentials` are Port's client id and secret."""

    seed: int = 1
    truth: Path | None = None
    credentials: tuple[str, str] | None = None
    people: bool = False
    """Whether Port has the blueprints of teams and users, as accounts have since January 2025."""
    bill: Bill = field(default_factory=Bill)
    """What both providers bill, see `billed`; without OpenAI's its side answers from the seed."""
    now: float | None = None
    host: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class SeenRequests:
    """A request as `/sandbox/requests` shows it; no header but the User-Agent, no body."""

    at: Decimal
    """Seconds since the epoch."""
    method: str
    path: str
    query: str
    status: int
    """0: the connection was closed without an answer."""
    user_agent: str
    bytes: int
    fault: str | None = None


@dataclass
class _Api:
    """One API: its path, and the contract of its calls."""

    mount: str
    contract: Contract
    violations: list[str] = field(default_factory=list)


class Sandbox:
    """Stand-ins for OpenAI and Port on one address. `start`, then `url`; `stop` at the end."""

    def __init__(self, config: SandboxConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self.source: Seeded | FromTruth = FromTruth(config.truth) if config.truth else Seeded(config.seed)
        self.store = Store(people=config.people)
        self.faults = Faults(config.seed)
        self.limits = RateLimits(self._clock.monotonic())
        self.limits.add("openai", *OPENAI_LIMIT, self._clock.monotonic())
        self.seen: deque[SeenRequests] = deque(maxlen=REMEMBERED)
        self.counts: Counter[str] = Counter()
        self.openai = openai_api.OpenAIApi(self.source)
        self.port = port_api.PortApi(self.store, config.credentials)
        self.anthropic = anthropic_api.AnthropicApi(config.bill.anthropic)
        self._billing = OpenAIBilling(config.bill.openai)
        self._apis = (
            _Api(OPENAI, Contract("openai-billing", "openai", "openai-legacy")),
            _Api(ANTHROPIC, Contract("anthropic")),
            _Api(PORT, Contract("port", "port-unpublished")),
        )
        self._runner: web.AppRunner | None = None
        self._address = (config.host, config.port)

    async def start(self) -> None:
        """Listen.

        Raises:
            UsageError: the port is taken.

        """
        app = web.Application(client_max_size=64 << 20)
        app.add_routes(routes(self))
        for api in self._apis:
            app.router.add_route("*", api.mount + r"/{path:[\s\S]*}", partial(self._serve, api))
        # A handler that hangs because of an injected fault must not keep the sandbox from stopping.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._address).start()
        except OSError as exc:
            await self.stop()
            raise UsageError(f"cannot listen on port {self._config.port}: {exc.strerror}", "--port 0") from exc
        self._address = (self._config.host, self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening; does nothing when not started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        """Return `http://host:port`, once started."""
        return "http://{}:{}".format(*self._address)

    def now(self) -> float:
        """Return the APIs' time, in seconds since the epoch."""
        return self._clock.now_ns() / 1e9 if self._config.now is None else self._config.now

    def restate(self, bill: Bill) -> None:
        """Answer with another bill from now on."""
        self.anthropic.bill = bill.anthropic
        self._billing.bill = bill.openai

    def violations(self) -> list[str]:
        """Return where the sandbox itself violated a contract. Tests assert that the list is empty."""
        return [violation for api in self._apis for violation in api.violations]

    async def _serve(self, api: _Api, request: web.Request) -> web.StreamResponse:
        fault = self.faults.pick(request.method, request.path_qs)
        status = 0
        body = await request.read()
        try:
            if fault and (early := await self._early(api, fault)) is not None:
                status = early.status
                return _response(early)
            if fault and fault.kind == "reset" and not fault.after:
                return _cut(request)
            reply = self._answer(api, request, body)
            if fault and fault.after and fault.kind == "status":
                reply = _faulty(api, fault)
            if fault and fault.kind == "reset":
                return _cut(request)
            status = reply.status
            if fault and fault.kind == "truncate":
                return await _truncated(request, reply)
            return _response(reply, half=bool(fault and fault.kind == "half"))
        finally:
            self.counts[f"{request.method} {request.path} {status}"] += 1
            self.seen.append(
                SeenRequests(
                    _moment(self.now()), request.method, request.path, request.query_string, status,
                    request.headers.get("User-Agent", ""), len(body), fault.kind if fault else None,
                )
            )  # fmt: skip

    async def _early(self, api: _Api, fault: Fault) -> Reply | None:
        """Apply a fault that occurs before the API processes the request; return its answer, if any."""
        if fault.kind in ("latency", "hang"):
            await asyncio.sleep(fault.seconds)
        if fault.kind == "hang":
            return _faulty(api, fault.model_copy(update={"status": 504}))
        return _faulty(api, fault) if fault.kind == "status" and not fault.after else None

    def _answer(self, api: _Api, request: web.Request, raw: bytes) -> Reply:
        path = request.rel_url.raw_path.removeprefix(api.mount) or "/"
        found = api.contract.find(request.method, path)
        if found is None:
            status = 405 if api.contract.knows(path) else 404
            return self._error(api, status, "not_found", f"{request.method} {path} does not exist")
        operation, names = found
        now = self.now()
        token = _bearer(request.headers)
        if api.mount == OPENAI:
            refusal = openai_api.refuse(operation.schemes, token)
        elif api.mount == ANTHROPIC:
            refusal = anthropic_api.refuse(path, request.headers)
        elif operation.secured and not self.port.authorised(token, now):
            refusal = port_api.error(401, "unauthorized", "the access token is missing, unknown or has expired")
        else:
            refusal = None
        if refusal is not None:
            return refusal
        family = port_api.family(operation.id) if api.mount == PORT else "openai"
        allowed, headers = self.limits.take(family, self._clock.monotonic(), now)
        reply = self._judged(api, request, raw, operation, names, now) if allowed else self._limited(api, family)
        return Reply(reply.status, reply.body, headers | reply.headers)

    def _judged(
        self, api: _Api, request: web.Request, raw: bytes, operation: SpecOperation, names: dict[str, str], now: float
    ) -> Reply:
        """Answer a permitted request: validate it, let the API answer, and validate the answer."""
        if api.mount == PORT and len(raw) > port_api.MAX_BODY:
            return self._error(api, 413, "payload_too_large", f"the body is larger than {port_api.MAX_BODY} bytes")
        query, problems = operation.query({name: request.query.getall(name) for name in request.query})
        try:
            body = exact.loads(raw) if raw else None
        except InvalidBodyError as exc:
            return self._error(api, 400, "bad_request", exc.message)
        problems += operation.path_problems(names) + operation.body_problems(body)
        if problems:
            return self._error(api, 422 if api.mount == PORT else 400, "invalid_request", str(problems[0]))
        call = SandboxCall(operation.id, names, query, body, request.headers.get("User-Agent", ""), now, len(raw))
        reply = self._handled(api, call)
        if wrong := operation.answer_problems(reply.status, reply.body):
            api.violations.append(f"{operation.id}: {wrong[0]}")
            return self._error(api, 500, "sandbox_broke_the_contract", str(wrong[0]))
        return reply

    def _handled(self, api: _Api, call: SandboxCall) -> Reply:
        if api.mount == ANTHROPIC:
            return self.anthropic.handle(call)
        if api.mount == PORT:
            return self.port.handle(call)
        billed = self._billing.handle(call)
        return self.openai.handle(call) if billed is None else billed

    def _limited(self, api: _Api, family: str) -> Reply:
        reply = self._error(api, 429, "too_many_requests", f"the rate limit of {family} is used up")
        # Port documents no Retry-After; OpenAI does.
        return Reply(429, reply.body, {"Retry-After": "1"} if api.mount == OPENAI else {})

    def _error(self, api: _Api, status: int, word: str, message: str) -> Reply:
        if api.mount == ANTHROPIC:
            return anthropic_api.error(status, message, word)
        return openai_api.error(status, message, word) if api.mount == OPENAI else port_api.error(status, word, message)

    def state(self) -> dict[str, Any]:
        """Return what `/sandbox` shows."""
        return {
            "now": _moment(self.now()),
            "openai": self.url + OPENAI,
            "anthropic": self.url + ANTHROPIC,
            "port": self.url + PORT,
            "entities": {
                one["identifier"]: len(self.store.entities(one["identifier"])) for one in self.store.blueprints()
            },
            "writes": self.store.writes,
            "limits": self.limits.state(),
            "faults": self.faults.state(),
            "violations": self.violations(),
            "requests": dict(self.counts.most_common(100)),
        }

    def requests(self) -> list[dict[str, Any]]:
        """Return the last requests, oldest first."""
        return [asdict(one) for one in self.seen]


def _moment(now: float) -> Decimal:
    return Decimal(f"{now:.3f}")


def _faulty(api: _Api, fault: Fault) -> Reply:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    message = "ordered from the sandbox"
    if api.mount == ANTHROPIC:
        return Reply(fault.status, anthropic_api.error(fault.status, message, "api_error").body, headers)
    if api.mount == OPENAI:
        return Reply(fault.status, openai_api.error(fault.status, message, "fault", "server_error").body, headers)
    return Reply(fault.status, port_api.error(fault.status, "fault", message).body, headers)


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _response(reply: Reply, *, half: bool = False) -> web.Response:
    body = exact.dumps(reply.body).encode()
    return web.Response(
        status=reply.status,
        body=body[: len(body) // 2] if half else body,
        headers=reply.headers,
        content_type="application/json",
    )


async def _truncated(request: web.Request, reply: Reply) -> web.StreamResponse:
    body = exact.dumps(reply.body).encode()
    response = web.StreamResponse(status=reply.status, headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _cut(request, response)


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Close the connection under the client."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()
