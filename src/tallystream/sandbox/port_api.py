"""Port's side: tokens, blueprints, entities, search; what each does is told in the package's docstring."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from tallystream.sandbox.port_aggregates import aggregated
from tallystream.sandbox.port_integrations import Integrations
from tallystream.sandbox.port_pages import SandboxPages
from tallystream.sandbox.port_scorecards import SandboxScorecards
from tallystream.sandbox.port_search import UnsupportedQueryError, matches
from tallystream.sandbox.port_store import ChangeRefusedError, Entity, How, Store, moment
from tallystream.sandbox.reply import Reply, SandboxCall

TOKEN_SECONDS = 10_800
MAX_BODY = 1 << 20
PUBLIC = ("identifier", "title", "icon", "team", "properties", "relations")
"""Fields of an entity that the API's schema has; `/sandbox/port/entities` shows the others too."""
AUTH = "POST /v1/auth/access_token"
ENTITIES = "/v1/blueprints/{blueprint_identifier}/entities"
ENTITY = ENTITIES + "/{entity_identifier}"
SCORECARDS = "/v1/blueprints/{blueprint_identifier}/scorecards"
SCORECARD = SCORECARDS + "/{scorecard_identifier}"


def error(status: int, word: str, message: str) -> Reply:
    """Return an error in Port's shape."""
    return Reply(status, {"ok": False, "error": word, "message": message})


def family(operation: str) -> str:
    """Return the family of routes whose rate limit an operation counts for."""
    if operation == AUTH:
        return "unauthenticated"
    if operation.endswith("/entities/bulk"):
        return "entities-bulk"
    if operation.endswith("/search"):
        return "search"
    if any(name in operation for name in ("/integration", "/pages", "/scorecards")):
        return "other"
    if operation == f"POST {ENTITIES}":
        return "entity-upsert"
    return "entities" if "entities" in operation else "blueprints"


class PortApi:
    """Answers calls that fit the contract. `credentials` are client id and secret; empty: every pair is good."""

    def __init__(self, store: Store, credentials: tuple[str, str] | None = None) -> None:
        self.store = store
        self.pages = SandboxPages()
        self.scorecards = SandboxScorecards()
        self.integrations = Integrations()
        self.token_seconds = TOKEN_SECONDS
        self._credentials = credentials
        self._tokens: dict[str, float] = {}
        self._routes: dict[str, Callable[[SandboxCall], Reply]] = {
            AUTH: self._token,
            "GET /v1/blueprints": lambda _: _ok(200, blueprints=store.blueprints()),
            "POST /v1/blueprints": lambda call: _ok(
                201, blueprint=store.create_blueprint(call.body, call.user_agent, call.now)
            ),
            "GET /v1/blueprints/{identifier}": lambda call: _ok(
                200, blueprint=store.blueprint(call.path["identifier"])
            ),
            "PUT /v1/blueprints/{identifier}": lambda call: self._change_blueprint(call, whole=True),
            "PATCH /v1/blueprints/{identifier}": lambda call: self._change_blueprint(call, whole=False),
            "DELETE /v1/blueprints/{identifier}": self._delete_blueprint,
            f"GET {ENTITIES}": lambda call: _ok(
                200, entities=[self._shown(one, call.now) for one in store.entities(_at(call))]
            ),
            f"POST {ENTITIES}": self._upsert,
            f"POST {ENTITIES}/bulk": self._bulk,
            f"POST {ENTITIES}/search": self._search,
            f"GET {ENTITIES}-count": lambda call: _ok(200, count=len(store.entities(_at(call)))),
            f"GET {ENTITY}": lambda call: _ok(200, entity=self._shown(store.entity(_at(call), _which(call)), call.now)),
            f"PUT {ENTITY}": self._put,
            f"PATCH {ENTITY}": self._patch,
            f"DELETE {ENTITY}": self._delete,
            "POST /v1/blueprints/{blueprint_identifier}/bulk/entities/delete": self._bulk_delete,
            "POST /v1/entities/search": self._search_all,
            f"GET {SCORECARDS}": lambda call: _ok(200, scorecards=self.scorecards.of(_at(call))),
            f"POST {SCORECARDS}": lambda call: _ok(
                201, scorecard=self.scorecards.create(store.blueprint(_at(call)), call.body)
            ),
            f"GET {SCORECARD}": lambda call: _ok(
                200, scorecard=self.scorecards.get(_at(call), call.path["scorecard_identifier"])
            ),
            f"PUT {SCORECARD}": lambda call: _ok(
                200,
                scorecard=self.scorecards.change(
                    store.blueprint(_at(call)), call.path["scorecard_identifier"], call.body
                ),
            ),
            "GET /v1/pages": lambda _: _ok(200, pages=self.pages.all()),
            "POST /v1/pages": lambda call: _ok(201, page=self.pages.create(call.body, self._known())),
            "GET /v1/pages/{identifier}": lambda call: _ok(200, page=self.pages.get(call.path["identifier"])),
            "PATCH /v1/pages/{identifier}": lambda call: _ok(
                200, page=self.pages.change(call.path["identifier"], call.body or {}, self._known())
            ),
            "DELETE /v1/pages/{identifier}": self._delete_page,
            "POST /v1/integration": lambda call: _ok(201, integration=self.integrations.create(call.body)),
            "GET /v1/integration/{identifier}": lambda call: _ok(
                200, integration=self.integrations.get(call.path["identifier"])
            ),
            "DELETE /v1/integration/{identifier}": self._delete_integration,
            "PATCH /v1/integration/{identifier}": lambda call: _ok(
                200, integration=self.integrations.change(call.path["identifier"], call.body or {})
            ),
            "PATCH /v1/integration/{identifier}/resync-state": lambda call: _ok(
                200, integration=self.integrations.sync(call.path["identifier"], call.body, moment(call.now))
            ),
            "POST /v1/integration/{identifier}/kinds/{kind}/examples": self._examples,
        }

    def handle(self, call: SandboxCall) -> Reply:
        """Return the answer."""
        handler = self._routes.get(call.operation)
        if handler is None:
            return error(501, "unsupported", "Port has this operation, the sandbox does not")
        try:
            return handler(call)
        except ChangeRefusedError as exc:
            return error(exc.status, exc.error, exc.message)
        except UnsupportedQueryError as exc:
            return error(422, "unsupported", str(exc))

    def authorised(self, token: str | None, now: float) -> bool:
        """Tell whether a bearer token is one of ours and has not expired."""
        return token is not None and self._tokens.get(token, 0.0) > now

    def expire_tokens(self) -> None:
        """Let every token issued so far be refused from now on."""
        self._tokens.clear()

    def _token(self, call: SandboxCall) -> Reply:
        given = (call.body["clientId"], call.body["clientSecret"])
        if self._credentials is not None and given != self._credentials:
            return error(401, "invalid_credentials", "invalid credentials")
        token = secrets.token_urlsafe(24)
        self._tokens = {one: until for one, until in self._tokens.items() if until > call.now}
        self._tokens[token] = call.now + self.token_seconds
        return _ok(200, accessToken=token, expiresIn=self.token_seconds, tokenType="Bearer")

    def _change_blueprint(self, call: SandboxCall, *, whole: bool) -> Reply:
        return _ok(200, blueprint=self._changed(call, whole=whole))

    def _changed(self, call: SandboxCall, *, whole: bool) -> dict[str, Any]:
        identifier = call.path["identifier"]
        return self.store.change_blueprint(identifier, call.body or {}, call.user_agent, call.now, whole=whole)

    def _delete_blueprint(self, call: SandboxCall) -> Reply:
        self.store.delete_blueprint(call.path["identifier"])
        return _ok(200)

    def _delete_page(self, call: SandboxCall) -> Reply:
        self.pages.delete(call.path["identifier"])
        return _ok(200)

    def _delete_integration(self, call: SandboxCall) -> Reply:
        self.integrations.delete(call.path["identifier"])
        return _ok(200)

    def _examples(self, call: SandboxCall) -> Reply:
        self.integrations.keep(call.path["identifier"], call.path["kind"], call.body["examples"])
        return _ok(200)

    def _known(self) -> set[str]:
        return {one["identifier"] for one in self.store.blueprints()}

    def _shown(self, entity: Entity, now: float) -> dict[str, Any]:
        """Return an entity with its aggregation properties."""
        shown = _public(entity)
        more = aggregated(self.store, entity["blueprint"], entity["identifier"], now)
        return shown | {"properties": shown["properties"] | more} if more else shown

    def _upsert(self, call: SandboxCall) -> Reply:
        entity, _ = self.store.write(_at(call), call.body or {}, _how(call), call.user_agent, call.now)
        return _ok(201, entity=_public(entity))

    def _bulk(self, call: SandboxCall) -> Reply:
        self.store.blueprint(_at(call))
        done, failed = [], []
        for index, given in enumerate(call.body["entities"]):
            try:
                _, created = self.store.write(_at(call), given, _how(call), call.user_agent, call.now)
            except ChangeRefusedError as exc:
                failed.append(
                    {"identifier": str(given.get("identifier", "")), "index": index, "statusCode": exc.status,
                     "error": exc.error, "message": exc.message}
                )  # fmt: skip
            else:
                done.append({"created": created, "identifier": given["identifier"], "index": index})
        return Reply(207 if failed else 200, {"ok": True, "entities": done, "errors": failed})

    def _put(self, call: SandboxCall) -> Reply:
        given = {"identifier": _which(call)} | (call.body or {})
        if given["identifier"] != _which(call):
            return error(422, "invalid_request", "the identifier in the body is another one")
        how = How(True, False, _how(call).create_missing_related_entities)
        self.store.entity(_at(call), _which(call))
        entity, _ = self.store.write(_at(call), given, how, call.user_agent, call.now)
        return _ok(200, entity=_public(entity))

    def _patch(self, call: SandboxCall) -> Reply:
        entity = self.store.patch(_at(call), _which(call), call.body or {}, _how(call), call.user_agent, call.now)
        return _ok(200, entity=_public(entity))

    def _delete(self, call: SandboxCall) -> Reply:
        self.store.delete(_at(call), _which(call), dependents=call.query["delete_dependents"])
        return _ok(200)

    def _bulk_delete(self, call: SandboxCall) -> Reply:
        deleted = []
        for identifier in call.body["entities"]:
            try:
                self.store.delete(_at(call), identifier, dependents=call.query["delete_dependents"])
                deleted.append(identifier)
            except ChangeRefusedError as exc:
                if exc.error != "not_found":
                    raise
        self.store.blueprint(_at(call))
        return _ok(200, deletedEntities=deleted)

    def _search(self, call: SandboxCall) -> Reply:
        body = call.body or {}
        found = [
            entity
            for entity in self.store.entities(_at(call))
            if "query" not in body or matches(body["query"], entity, call.now)
        ]
        start = body.get("from")
        if start is not None:
            found = [entity for entity in found if entity["identifier"] > start]
        limit = int(body.get("limit", 200))
        page = [_projected(entity, body) for entity in found[:limit]]
        more = {"next": found[limit - 1]["identifier"]} if len(found) > limit else {}
        return _ok(200, entities=page, **more)

    def _search_all(self, call: SandboxCall) -> Reply:
        names = [blueprint["identifier"] for blueprint in self.store.blueprints()]
        found = [
            entity for name in names for entity in self.store.entities(name) if matches(call.body, entity, call.now)
        ]
        blueprints = sorted({entity["blueprint"] for entity in found})
        return _ok(200, entities=[_public(entity) for entity in found], matchingBlueprints=blueprints)


def _ok(status: int, **body: object) -> Reply:
    return Reply(status, {"ok": True} | body)


def _at(call: SandboxCall) -> str:
    return call.path["blueprint_identifier"]


def _which(call: SandboxCall) -> str:
    return call.path["entity_identifier"]


def _how(call: SandboxCall) -> How:
    names = ("upsert", "merge", "create_missing_related_entities", "validation_only")
    return How(**{name: bool(call.query.get(name, False)) for name in names})


def _public(entity: Entity) -> dict[str, Any]:
    """Return the API's form; an absent icon or team is left out, because its schema does not allow null there."""
    return {name: entity[name] for name in PUBLIC if entity[name] is not None}


def _projected(entity: Entity, body: dict[str, Any]) -> dict[str, Any]:
    """Return an entity with `include`d properties only, or without `exclude`d ones."""
    shown = _public(entity)
    include, exclude = body.get("include"), body.get("exclude", ())
    if include is None and not exclude:
        return shown
    kept = {
        name: value
        for name, value in shown["properties"].items()
        if (include is None or name in include or f"properties.{name}" in include) and name not in exclude
    }
    return shown | {"properties": kept}
