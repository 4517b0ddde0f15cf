"""The pages and the API. A page renders a model with a template; the API returns the same model as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import jinja2
from aiohttp import web
from pydantic import BaseModel

from tallystream import __version__
from tallystream.agents.ledger.queries.console import changed
from tallystream.agents.ledger.store.open import open_database
from tallystream.agents.pricing.book import Book
from tallystream.console import bills, build, charts, models, overview, params
from tallystream.console import format as words
from tallystream.console.auth import CSRF_FIELD, CSRF_HEADER, ConsoleAuthenticator, Visitor
from tallystream.console.changes import Actor, Changes, chosen_letters
from tallystream.console.config import ConsoleConfig
from tallystream.console.errors import BadRequestError, NotFoundError
from tallystream.console.health import HealthReader
from tallystream.console.live import Live
from tallystream.console.metrics import ConsoleMetrics
from tallystream.console.middleware import PERSON, guard
from tallystream.console.models import ErrorModel
from tallystream.console.names import BILLING, KINDS, PROVIDER_NAMES
from tallystream.console.openapi import ApiOperation, document
from tallystream.console.tables import to_csv
from tallystream.streams.connections.registry import PROVIDERS
from tallystream.streams.service.clock import Clock

HERE = Path(__file__).parent
MAX_BODY = 256 << 10
NAV = (
    ("/", "Overview"),
    ("/providers", "Providers"),
    ("/sessions", "Sessions"),
    ("/deadletters", "Dead letters"),
    ("/bills", "Bills"),
    ("/openai", "OpenAI"),
    ("/health", "Health"),
)
T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


class ConsoleApp:
    """Answers all requests; a server runs its `application`."""

    def __init__(
        self,
        config: ConsoleConfig,
        clock: Clock,
        metrics: ConsoleMetrics,
        auth: ConsoleAuthenticator,
        book: Book,
        health: HealthReader,
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._auth = auth
        self._book = book
        self._health = health
        self._changes = Changes(config, clock)
        self.live = Live(self._look, config.look, metrics)
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )  # fmt: skip
        self._templates.filters |= {
            "dollars": words.dollars, "signed": words.signed, "number": words.number, "tokens": words.tokens,
            "hour": words.hour, "short_id": words.short_id, "share": words.share,
        }  # fmt: skip
        self._templates.globals |= {
            "ago": words.ago, "change": words.change, "bars": charts.bars, "Bar": charts.ChartBar,
            "share_bar": charts.share_bar, "url": url, "version": __version__, "nav": NAV, "kinds": KINDS,
            "providers": PROVIDERS, "provider_names": PROVIDER_NAMES, "billed": BILLING,
        }  # fmt: skip
        self.application = self._routes()

    # -- reading

    async def _read(self, work: Callable[[build.Sight], T]) -> T:
        """Run a function with a consistent view of the ledger.

        Raises:
            LedgerUnreachableError: the ledger does not exist or does not answer.

        """
        return await asyncio.to_thread(self._sight, work)

    def _sight(self, work: Callable[[build.Sight], T]) -> T:
        database = open_database(self._config.place, read_only=True)
        try:
            with database.reading():
                return work(build.Sight(database, self._clock.now_ns()))
        finally:
            database.close()

    def _look(self) -> Mapping[str, int]:
        return self._sight(lambda sight: changed(sight.database))

    async def _overview(self, request: web.Request) -> overview.Overview:
        asked = params.read(params.OverviewParams, request.query)
        return await self._read(lambda sight: overview.overview(sight, asked.range))

    async def _sessions(self, request: web.Request) -> models.SessionPage:
        asked = params.read(params.SessionParams, request.query)
        try:
            return await self._read(lambda sight: build.session_page(sight, asked.wanted(), asked.sort, asked.after))
        except ValueError as exc:
            raise BadRequestError("after: not a cursor of this list", "start at the first page") from exc

    async def _session(self, request: web.Request) -> models.SessionDetail:
        asked = params.read(params.OneSessionParams, request.query)
        found = await self._read(lambda sight: build.session_detail(sight, self._book, asked.connection, asked.id))
        if found is None:
            raise NotFoundError("the session does not exist", "choose one from the list of sessions")
        return found

    async def _connections(self, request: web.Request) -> models.ConnectionList:
        params.read(params.ConnectionsParams, request.query)
        config = self._config
        return await self._read(
            lambda sight: build.connections(sight, openai=config.openai, anthropic=config.anthropic)
        )

    async def _connection(self, request: web.Request) -> models.ConnectionModel:
        wanted = request.match_info["connection_id"]
        for one in (await self._connections(request)).connections:
            if one.connection_id == wanted:
                return one
        raise NotFoundError("the connection does not exist", "choose one from the list of providers")

    async def _dead_letters(self, request: web.Request) -> models.DeadLetterPage:
        asked = params.read(params.DeadLetterParams, request.query)
        return await self._read(lambda sight: build.dead_letters(sight, asked.reason, asked.after))

    async def _openai(self, request: web.Request) -> models.BilledDays:
        asked = params.read(params.OpenAIParams, request.query)
        return await self._read(lambda sight: build.openai_days(sight, asked.days, asked.day))

    async def _bills(self, request: web.Request) -> bills.BillDays:
        asked = params.read(params.BillParams, request.query)
        return await self._read(lambda sight: bills.bill_days(sight, asked.days))

    async def _health_now(self, request: web.Request) -> models.DeploymentHealth:
        params.read(params.HealthParams, request.query)
        return await self._health.read()

    # -- changing

    async def _create(self, request: web.Request, asked: models.NewConnection) -> models.IssuedConnection:
        return await self._changed(self._changes.create(_actor(request), asked))

    async def _rotate(self, request: web.Request, asked: models.RotateConnection) -> models.IssuedConnection:
        return await self._changed(self._changes.rotate(_actor(request), request.match_info["connection_id"], asked))

    async def _revoke(self, request: web.Request) -> None:
        await self._changed(self._changes.revoke(_actor(request), request.match_info["connection_id"]))

    async def _test(self, request: web.Request, asked: models.ConnectionTest) -> models.ConnectionTestResult:
        return await self._changes.test((await self._connection(request)).provider, asked)

    async def _replay(self, request: web.Request, asked: models.ReplayRequest) -> models.ReplayResult:
        found = await self._read(lambda sight: chosen_letters(sight.database, asked))
        return await self._changed(self._changes.replay(_actor(request), found))

    async def _changed(self, work: Coroutine[Any, Any, T]) -> T:
        # Shielded, so that the audit entry with the result is written even if the browser disconnects.
        done = await asyncio.shield(asyncio.ensure_future(work))
        self._metrics.changes.inc()
        return done

    # -- pages

    def _page(self, template: str, read: Callable[[web.Request], Any]) -> Any:
        async def page(request: web.Request) -> web.Response:
            return self._render(request, template, {"page": await read(request), "asked": dict(request.query)})

        return page

    def _render(
        self, request: web.Request, template: str, values: Mapping[str, Any], status: int = 200
    ) -> web.Response:
        person = request.get(PERSON)
        text = self._templates.get_template(template).render(
            **values, person=person, path=request.path, csrf=person.csrf if person else "",
            token_login=self._auth.kind == "token",
        )  # fmt: skip
        return web.Response(text=text, content_type="text/html", charset="utf-8", status=status)

    def error_page(self, request: web.Request, status: int, error: ErrorModel) -> web.Response:
        """Answer with an error, as a page or as the API's model."""
        if request.path.startswith("/api/") or request.path == "/live":
            return web.json_response(text=error.model_dump_json(), status=status)
        return self._render(request, "error.html", {"error": error, "status": status}, status)

    async def _form(self, request: web.Request) -> Mapping[str, str]:
        """Return the fields of a form.

        Raises:
            ForbiddenError: the request is not a form of ours.

        """
        fields = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        self._auth.check_change(request, request[PERSON], fields.pop(CSRF_FIELD, None))
        return {name: value for name, value in fields.items() if value != ""}

    async def _create_page(self, request: web.Request) -> web.Response:
        fields = await self._form(request)
        if (billed := fields.get("provider", "").removesuffix("-billing")) in BILLING:
            raise web.HTTPSeeOther(f"/providers/billing/{billed}")  # a key is a setting: nothing is created here
        issued = await self._create(request, models.NewConnection.model_validate(fields))
        return self._render(request, "issued.html", {"issued": issued, "rotated": False}, 201)

    async def _rotate_page(self, request: web.Request) -> web.Response:
        issued = await self._rotate(request, models.RotateConnection.model_validate(await self._form(request)))
        return self._render(request, "issued.html", {"issued": issued, "rotated": True}, 201)

    async def _revoke_page(self, request: web.Request) -> web.Response:
        await self._form(request)
        await self._revoke(request)
        raise web.HTTPSeeOther(f"/providers/{request.match_info['connection_id']}")

    async def _test_page(self, request: web.Request) -> web.Response:
        result = await self._test(request, models.ConnectionTest.model_validate(await self._form(request)))
        values = {"page": await self._connection(request), "asked": {}, "tested": result}
        return self._render(request, "provider.html", values)

    async def _provider_page(self, request: web.Request) -> web.Response:
        values = {"page": await self._connection(request), "asked": {}, "tested": None}
        return self._render(request, "provider.html", values)

    async def _billing_page(self, request: web.Request) -> web.Response:
        for one in (await self._connections(request)).billing:
            if one.provider == request.match_info["provider"]:
                return self._render(request, "billing.html", {"page": one, "billing": BILLING[one.provider]})
        raise NotFoundError("the provider is not one whose bill is polled", "choose one from the list of providers")

    async def _replay_page(self, request: web.Request) -> web.Response:
        fields = await self._form(request)
        asked = models.ReplayRequest(
            sources=[fields["source"]] if "source" in fields else [], reason=fields.get("reason")
        )
        return self._render(request, "replayed.html", {"result": await self._replay(request, asked)})

    async def _login(self, request: web.Request) -> web.Response:
        given = self._auth.log_in(request.query.get("token", ""))
        if given is None:
            hint = "a link works once, within ten minutes: `tallystream console link` prints another"
            return self.error_page(request, 401, ErrorModel(code="login", message="this link is not valid", hint=hint))
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            self._auth.cookie, given[0], max_age=given[1], httponly=True, samesite="Lax", path="/",
            secure=request.secure,
        )  # fmt: skip
        return response

    async def _logout(self, request: web.Request) -> web.Response:
        await request.post()
        self._auth.log_out(request)
        response = web.Response(status=303, headers={"Location": "/"})
        response.del_cookie(self._auth.cookie, path="/")
        return response

    # -- the API

    def _api(self, read: Callable[[web.Request], Any]) -> Any:
        async def answer(request: web.Request) -> web.Response:
            found: BaseModel = await read(request)
            if params.read(params.FormatParams, request.query).format == "csv":
                text = to_csv(found, request.query.get("table"))
                return web.Response(text=text, content_type="text/csv", charset="utf-8")
            return web.json_response(text=found.model_dump_json())

        return answer

    def _api_change(self, model: type[BaseModel] | None, work: Any, status: int) -> Any:
        async def answer(request: web.Request) -> web.Response:
            self._auth.check_change(request, request[PERSON], request.headers.get(CSRF_HEADER))
            if model is None:
                found = await work(request)
            else:
                if request.content_type != "application/json":
                    raise web.HTTPUnsupportedMediaType
                found = await work(request, model.model_validate_json(await request.read()))
            return web.Response(status=status) if found is None else web.json_response(
                text=found.model_dump_json(), status=status
            )  # fmt: skip

        return answer

    async def _me(self, request: web.Request) -> web.Response:
        person: Visitor = request[PERSON]
        return web.json_response({"name": person.name, "role": person.role, "csrf": person.csrf})

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.json_response(document([one for one, _ in self._operations()]))

    def _operations(self) -> list[tuple[ApiOperation, Any]]:
        api = "/api/v1"
        ident = {"connection_id": "The public id of a connection."}
        change = ("400", "401", "403", "409", "415", "421", "503")
        known = (*change, "404")
        return [
            (ApiOperation("GET", f"{api}/overview", "What was spent, and how fast.", overview.Overview,
                       params=params.OverviewParams, table=True), self._api(self._overview)),
            (ApiOperation("GET", f"{api}/sessions", "Sessions, the largest first.", models.SessionPage,
                       params=params.SessionParams, table=True), self._api(self._sessions)),
            (ApiOperation("GET", f"{api}/session", "One session with the explanation of its cost.",
                       models.SessionDetail, params=params.OneSessionParams, table=True,
                       problems=("400", "401", "404", "421", "503")), self._api(self._session)),
            (ApiOperation("GET", f"{api}/connections", "All connections, the newest first.", models.ConnectionList,
                       params=params.ConnectionsParams, table=True), self._api(self._connections)),
            (ApiOperation("POST", f"{api}/connections", "Create a connection. Its secrets are shown only here.",
                       models.IssuedConnection, 201, body=models.NewConnection, problems=change),
             self._api_change(models.NewConnection, self._create, 201)),
            (ApiOperation("GET", f"{api}/connections/{{connection_id}}", "One connection.", models.ConnectionModel,
                       path_params=ident, problems=("400", "401", "404", "421", "503")), self._api(self._connection)),
            (ApiOperation("POST", f"{api}/connections/{{connection_id}}/rotate", "Issue a new secret.",
                       models.IssuedConnection, 201, body=models.RotateConnection, path_params=ident, problems=known),
             self._api_change(models.RotateConnection, self._rotate, 201)),
            (ApiOperation("POST", f"{api}/connections/{{connection_id}}/revoke", "Refuse it from now on.", None, 204,
                       path_params=ident, problems=known), self._api_change(None, self._revoke, 204)),
            (ApiOperation("POST", f"{api}/connections/{{connection_id}}/test", "Test its secret at the gateway.",
                       models.ConnectionTestResult, body=models.ConnectionTest, path_params=ident, problems=known),
             self._api_change(models.ConnectionTest, self._test, 200)),
            (ApiOperation("GET", f"{api}/deadletters", "Records that were not counted, and why.", models.DeadLetterPage,
                       params=params.DeadLetterParams, table=True), self._api(self._dead_letters)),
            (ApiOperation("POST", f"{api}/deadletters/replay", "Replay them.",
                       models.ReplayResult, body=models.ReplayRequest, problems=known),
             self._api_change(models.ReplayRequest, self._replay, 200)),
            (ApiOperation("GET", f"{api}/bills", "Bills and estimates, and why they differ.", bills.BillDays,
                       params=params.BillParams, table=True), self._api(self._bills)),
            (ApiOperation("GET", f"{api}/openai/days", "OpenAI's numbers next to ours.", models.BilledDays,
                       params=params.OpenAIParams, table=True), self._api(self._openai)),
            (ApiOperation("GET", f"{api}/health", "The health of the deployment.", models.DeploymentHealth,
                       params=params.HealthParams, table=True), self._api(self._health_now)),
        ]  # fmt: skip

    def _routes(self) -> web.Application:
        guarded: Any = guard(self._auth, self._metrics, self.error_page)
        app = web.Application(middlewares=[guarded], client_max_size=MAX_BODY)
        route = app.router
        route.add_get("/", self._page("overview.html", self._overview))
        route.add_get("/providers", self._page("providers.html", self._connections))
        route.add_post("/providers", self._create_page)
        route.add_get("/providers/billing/{provider}", self._billing_page)
        route.add_get("/providers/{connection_id}", self._provider_page)
        route.add_post("/providers/{connection_id}/rotate", self._rotate_page)
        route.add_post("/providers/{connection_id}/revoke", self._revoke_page)
        route.add_post("/providers/{connection_id}/test", self._test_page)
        route.add_get("/providers/{connection_id}/{form:rotate|revoke|test}", _back_to_provider)
        route.add_get("/sessions", self._page("sessions.html", self._sessions))
        route.add_get("/session", self._page("session.html", self._session))
        route.add_get("/deadletters", self._page("deadletters.html", self._dead_letters))
        route.add_post("/deadletters/replay", self._replay_page)
        route.add_get("/bills", self._page("bills.html", self._bills))
        route.add_get("/openai", self._page("openai.html", self._openai))
        route.add_get("/health", self._page("health.html", self._health_now))
        route.add_get("/login", self._login)
        route.add_post("/logout", self._logout)
        route.add_get("/live", self._stream)
        route.add_static("/static/", HERE / "static")
        route.add_get("/api/v1/me", self._me)
        route.add_get("/api/v1/openapi.json", self._openapi)
        for operation, handler in self._operations():
            route.add_route(operation.method, operation.path, handler)
        return app

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        return await self.live.stream(request, lambda: self._auth.who(request) is not None)


def url(path: str, asked: Mapping[str, Any] | None = None, **more: Any) -> str:
    """Return a link with the parameters of `asked`, updated by the others. None removes a parameter."""
    query = {**(asked or {}), **more}
    text = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return f"{path}?{text}" if text else path


async def _back_to_provider(request: web.Request) -> web.Response:
    """Answer who opens the address of a form's answer again."""
    raise web.HTTPSeeOther(f"/providers/{request.match_info['connection_id']}")


def _actor(request: web.Request) -> Actor:
    return Actor(request[PERSON].name, request.remote or "")
