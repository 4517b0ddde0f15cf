"""Asking a component for its `/status`."""

from __future__ import annotations

import aiohttp
from pydantic import ValidationError

from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import ComponentReport

ANSWER_SECONDS = 5.0


def session() -> aiohttp.ClientSession:
    """Return a client that waits for an answer for ANSWER_SECONDS; close it at the end."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))


async def read_report(http: aiohttp.ClientSession, ops_url: str) -> ComponentReport:
    """Return what the component at `ops_url` reports.

    Raises:
        UnreachableError: it does not answer, or not with a report; the message completes "NAME ...".

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
            "does not report its status", "is it of another version of tallystream? Update all components together"
        ) from exc
