"""`/sandbox/...`: controls and inspects the sandbox in tests and demos. Not part of either API.

GET    /sandbox                          an overview
GET    /sandbox/requests                 the last 10,000 requests, without bodies and secrets
DELETE /sandbox/requests                 forget them
GET    /sandbox/faults                   the faults in force and how often they hit
POST   /sandbox/faults                   inject one (see `faults.Fault`), or a list of them
DELETE /sandbox/faults                   cancel all
GET    /sandbox/port/entities            every entity of every blueprint, with owner and times (?blueprint=ID)
GET    /sandbox/port/blueprints          every blueprint
GET    /sandbox/port/pages               every page
GET    /sandbox/port/integrations        every integration, with the samples of its kinds
POST   /sandbox/port/expire-tokens       refuse every token issued so far
POST   /sandbox/port/token-seconds       {"seconds": 5}: how long the next tokens hold
POST   /sandbox/limits                   {"family": "entities-bulk", "limit": 300, "burst": 10}
POST   /sandbox/openai/restate           {"day": "2026-11-20"}: usage of that day turns up late
POST   /sandbox/bill                     set the bill of both providers (see `billed`)
GET    /sandbox/healthz                  200
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Protocol

from aiohttp import web
from pydantic import ValidationError

from tallystream.sandbox.billed import Bill
from tallystream.sandbox.faults import Fault, Faults
from tallystream.sandbox.limits import RateLimits
from tallystream.sandbox.openai_data import FromTruth, Seeded, day_of
from tallystream.sandbox.port_api import PortApi
from tallystream.sandbox.port_store import Store
from tallystream.schemas import exact
from tallystream.schemas.errors import InvalidBodyError


class Controlled(Protocol):
    """The sandbox as used here, without importing its module, which imports this one."""

    source: Seeded | FromTruth
    store: Store
    faults: Faults
    limits: RateLimits
    port: PortApi
    counts: Counter[str]

    @property
    def seen(self) -> deque[Any]:
        """The last requests."""
        ...

    def restate(self, bill: Bill) -> None:
        """Answer with another bill from now on."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what `/sandbox` shows."""
        ...

    def requests(self) -> list[dict[str, Any]]:
        """Return the last requests, oldest first."""
        ...


def routes(sandbox: Controlled) -> list[web.RouteDef]:
    """Return the routes."""
    admin = _Admin(sandbox)
    return [
        web.get("/sandbox", admin.state),
        web.get("/sandbox/healthz", admin.healthy),
        web.get("/sandbox/requests", admin.requests),
        web.delete("/sandbox/requests", admin.forget),
        web.get("/sandbox/faults", admin.faults),
        web.post("/sandbox/faults", admin.order),
        web.delete("/sandbox/faults", admin.cancel),
        web.get("/sandbox/port/entities", admin.entities),
        web.get("/sandbox/port/blueprints", admin.blueprints),
        web.get("/sandbox/port/pages", admin.pages),
        web.get("/sandbox/port/integrations", admin.integrations),
        web.post("/sandbox/port/expire-tokens", admin.expire),
        web.post("/sandbox/port/token-seconds", admin.token_seconds),
        web.post("/sandbox/limits", admin.limit),
        web.post("/sandbox/openai/restate", admin.restate),
        web.post("/sandbox/bill", admin.bill),
    ]


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, text=exact.dumps(body), content_type="application/json")


async def _body(request: web.Request) -> Any:
    try:
        return exact.loads(await request.read() or b"{}")
    except InvalidBodyError as exc:
        raise web.HTTPBadRequest(text=exc.message) from None


class _Admin:
    def __init__(self, sandbox: Controlled) -> None:
        self._sandbox = sandbox

    async def state(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.state())

    async def healthy(self, _: web.Request) -> web.Response:
        return _json({"ok": True})

    async def requests(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.requests())

    async def forget(self, _: web.Request) -> web.Response:
        self._sandbox.seen.clear()
        self._sandbox.counts.clear()
        return _json({"ok": True})

    async def faults(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.faults.state())

    async def order(self, request: web.Request) -> web.Response:
        given = await _body(request)
        try:
            ordered = [Fault.model_validate(one) for one in (given if isinstance(given, list) else [given])]
        except ValidationError as exc:
            raise web.HTTPBadRequest(text=str(exc.errors(include_url=False, include_context=False))) from None
        for fault in ordered:
            self._sandbox.faults.add(fault)
        return _json(self._sandbox.faults.state(), 201)

    async def cancel(self, _: web.Request) -> web.Response:
        self._sandbox.faults.clear()
        return _json({"ok": True})

    async def entities(self, request: web.Request) -> web.Response:
        store = self._sandbox.store
        wanted = request.query.get("blueprint")
        names = [one["identifier"] for one in store.blueprints()]
        if wanted is not None and wanted not in names:
            raise web.HTTPNotFound(text=f"blueprint {wanted} does not exist")
        return _json([entity for name in names if wanted in (None, name) for entity in store.entities(name)])

    async def blueprints(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.store.blueprints())

    async def pages(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.port.pages.all())

    async def integrations(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.port.integrations.all())

    async def expire(self, _: web.Request) -> web.Response:
        self._sandbox.port.expire_tokens()
        return _json({"ok": True})

    async def token_seconds(self, request: web.Request) -> web.Response:
        self._sandbox.port.token_seconds = await _field(request, "seconds", int)
        return _json({"ok": True})

    async def limit(self, request: web.Request) -> web.Response:
        family, limit, burst = [await _field(request, *one) for one in _LIMIT]
        try:
            self._sandbox.limits.configure(family, limit, burst)
        except KeyError:
            raise web.HTTPBadRequest(text=f"families: {', '.join(self._sandbox.limits.state())}") from None
        return _json(self._sandbox.limits.state())

    async def bill(self, request: web.Request) -> web.Response:
        try:
            bill = Bill.model_validate(await _body(request))
        except ValidationError as exc:
            raise web.HTTPBadRequest(text=str(exc.errors(include_url=False, include_context=False))) from None
        self._sandbox.restate(bill)
        return _json({"ok": True})

    async def restate(self, request: web.Request) -> web.Response:
        source = self._sandbox.source
        if not isinstance(source, Seeded):
            raise web.HTTPConflict(text="usage out of a truth file cannot be restated")
        try:
            day = day_of(await _field(request, "day", str))
        except ValueError:
            raise web.HTTPBadRequest(text="day is YYYY-MM-DD") from None
        source.restate(day)
        return _json({"ok": True})


_LIMIT: tuple[tuple[str, type], ...] = (("family", str), ("limit", int), ("burst", int))


async def _field(request: web.Request, name: str, kind: type) -> Any:
    given = await _body(request)
    value = given.get(name) if isinstance(given, dict) else None
    if not isinstance(value, kind) or (isinstance(value, int) and value <= 0):
        raise web.HTTPBadRequest(text=f"{name} must be given, as {kind.__name__}")
    return value
