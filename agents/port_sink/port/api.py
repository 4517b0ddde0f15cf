"""API calls: entities in bulk, with a result per entity, blueprints, and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from tallystream.agents.port_sink.errors import PortError, PortFailureReason
from tallystream.agents.port_sink.mapping.entities import Entity
from tallystream.agents.port_sink.port.client import PortAnswerError, PortClient

BULK = 20
"""Maximum number of entities in a bulk request."""
MAX_BODY = 1 << 20
"""Maximum size of a request body in bytes."""
BULK_DELETE = 100
PAGE_SIZE = 1000
"""Entities on a page of a search, the most that Port returns."""
_AROUND = len(b'{"entities":[]}')


@dataclass(frozen=True)
class Failed:
    """Why one entity of a bulk request was not written."""

    status: int
    message: str

    @property
    def missing(self) -> bool:
        """Whether an entity that it relates to does not exist (yet)."""
        return self.status == 404

    @property
    def retryable(self) -> bool:
        """Whether the same entity may be accepted later."""
        return self.status in (408, 409, 429) or self.status >= 500


def fits(entities: Sequence[Entity], another: Entity) -> bool:
    """Tell whether another entity still fits into a bulk request."""
    size = _AROUND + sum(len(one.text) + 1 for one in entities) + len(another.text)
    return len(entities) < BULK and size <= MAX_BODY


async def upsert(
    client: PortClient, blueprint: str, entities: Sequence[Entity], *, merge: bool, create_missing: bool
) -> tuple[Mapping[str, str], list[Failed | None]]:
    """Write entities; return the answer's headers, and for each entity None or why it was not written.

    Raises:
        PortError: the request as a whole was not, or not certainly, carried out.

    """
    answer = await client.request(
        "POST",
        f"/blueprints/{quote(blueprint, safe='')}/entities/bulk",
        body=b'{"entities":[' + b",".join(entity.text for entity in entities) + b"]}",
        query={
            "upsert": "true",
            "merge": "true" if merge else "false",
            "create_missing_related_entities": "true" if create_missing else "false",
        },
    )
    results: list[Failed | None] = [None] * len(entities)
    done = {one.get("index") for one in answer.body.get("entities", ())}
    for error in answer.body.get("errors", ()):
        index = error.get("index")
        if isinstance(index, int) and 0 <= index < len(results):
            results[index] = Failed(int(error.get("statusCode", 422)), str(error.get("message") or error.get("error")))
    unsaid = [index for index, result in enumerate(results) if result is None and index not in done]
    if unsaid:
        raise PortError(
            PortFailureReason.UNANSWERED, f"Port's answer does not mention {len(unsaid)} of {len(results)} entities"
        )
    return answer.headers, results


async def delete(
    client: PortClient, blueprint: str, identifiers: Sequence[str], *, dependents: bool
) -> Mapping[str, str]:
    """Delete entities; those that do not exist are not an error. Returns the answer's headers.

    Raises:
        PortError: the entities were not deleted, or it is unknown.

    """
    answer = await client.request(
        "POST",
        f"/blueprints/{quote(blueprint, safe='')}/bulk/entities/delete",
        body=orjson.dumps({"entities": list(identifiers)}),
        query={"delete_dependents": "true" if dependents else "false"},
    )
    return answer.headers


async def identifiers(client: PortClient, blueprint: str) -> set[str]:
    """Return the identifiers of all entities of a blueprint.

    Raises:
        PortError: Port does not answer, or the blueprint does not exist.

    """
    found: set[str] = set()
    asked: dict[str, object] = {"limit": PAGE_SIZE, "include": ["$identifier"]}
    while True:
        answer = await client.request(
            "POST", f"/blueprints/{quote(blueprint, safe='')}/entities/search", body=orjson.dumps(asked)
        )
        found.update(one["identifier"] for one in answer.body.get("entities", ()) if "identifier" in one)
        following = answer.body.get("next")
        if not following or following == asked.get("from"):
            return found
        asked["from"] = following


async def blueprint(client: PortClient, identifier: str) -> dict[str, Any] | None:
    """Return Port's blueprint, None when it does not exist.

    Raises:
        PortError: Port does not answer.

    """
    answer = await client.find(f"/blueprints/{quote(identifier, safe='')}")
    return None if answer is None else answer.body["blueprint"]


async def create_blueprint(client: PortClient, definition: Mapping[str, object]) -> bool:
    """Create a blueprint; returns False when it already exists.

    Raises:
        PortError: Port rejects it.

    """
    try:
        await client.request("POST", "/blueprints", body=orjson.dumps(definition))
    except PortAnswerError as exc:
        if exc.status == 409:
            return False
        raise
    return True


async def patch_blueprint(client: PortClient, identifier: str, fields: Mapping[str, object]) -> None:
    """Replace the given fields of a blueprint.

    Raises:
        PortError: Port rejects them.

    """
    await client.request("PATCH", f"/blueprints/{quote(identifier, safe='')}", body=orjson.dumps(fields))


async def page(client: PortClient, identifier: str) -> dict[str, Any] | None:
    """Return a page of Port's interface, None when it does not exist.

    Raises:
        PortError: Port does not answer.

    """
    answer = await client.find(f"/pages/{quote(identifier, safe='')}")
    return None if answer is None else answer.body["page"]


async def scorecard(client: PortClient, blueprint: str, identifier: str) -> dict[str, Any] | None:
    """Return a scorecard, None when it or its blueprint does not exist.

    Raises:
        PortError: Port does not answer.

    """
    answer = await client.find(f"{_scorecards(blueprint)}/{quote(identifier, safe='')}")
    return None if answer is None else answer.body["scorecard"]


async def create_scorecard(client: PortClient, blueprint: str, definition: Mapping[str, object]) -> None:
    """Create a scorecard.

    Raises:
        PortError: Port rejects it.

    """
    await client.request("POST", _scorecards(blueprint), body=orjson.dumps(definition))


async def put_scorecard(client: PortClient, blueprint: str, identifier: str, definition: Mapping[str, object]) -> None:
    """Replace a scorecard.

    Raises:
        PortError: Port rejects it.

    """
    path = f"{_scorecards(blueprint)}/{quote(identifier, safe='')}"
    await client.request("PUT", path, body=orjson.dumps(definition))


def _scorecards(blueprint: str) -> str:
    return f"/blueprints/{quote(blueprint, safe='')}/scorecards"


async def create_page(client: PortClient, definition: Mapping[str, object]) -> None:
    """Create a page.

    Raises:
        PortError: Port rejects it.

    """
    await client.request("POST", "/pages", body=orjson.dumps(definition))


async def patch_page(client: PortClient, identifier: str, fields: Mapping[str, object]) -> None:
    """Replace the given fields of a page.

    Raises:
        PortError: Port rejects them.

    """
    await client.request("PATCH", f"/pages/{quote(identifier, safe='')}", body=orjson.dumps(fields))
