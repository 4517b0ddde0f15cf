"""Requests `/status` of a component."""

from __future__ import annotations

import aiohttp
from pydantic import ValidationError

from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import ComponentReport

ANSWER_SECONDS = 5.0


def session() -> aiohttp.ClientSession:
    """Return a client with a timeout of ANSWER_SECONDS. The caller must close it."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))


async def read_report(http: aiohttp.ClientSession, ops_url: str) -> ComponentReport:
    """Return the report of the component at `ops_url`.

    Raises:
        UnreachableError: it does not answer with a report. The message continues "NAME ...".

    """
    try:
        async with http.get(f"{ops_url}/status") as response:
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        raise UnreachableError("does not answer", "`tallystream status` shows what runs on this machine") from exc
    try:
        return ComponentReport.model_validate_json(body)
    except ValidationError as exc:
        raise UnreachableError(
            "does not report its status", "is it another version of tallystream? Update all components together"
        ) from exc
