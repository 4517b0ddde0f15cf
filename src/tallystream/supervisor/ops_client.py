"""Requests `/status` of a component."""

from __future__ import annotations

import asyncio

from pydantic import ValidationError

from tallystream.schemas.errors import UnreachableError, UsageError
from tallystream.schemas.status import ComponentReport
from tallystream.supervisor.http_client import request

ANSWER_SECONDS = 5.0


async def read_report(ops_url: str) -> ComponentReport:
    """Return the report of the component at `ops_url`.

    It is asked in a thread by Python's own client, because aiohttp takes longer to import than all answers to arrive.

    Raises:
        UnreachableError: it does not answer with a report. The message continues "NAME ...".

    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, body = await asyncio.to_thread(request, "GET", f"{ops_url}/status", timeout=ANSWER_SECONDS)
    except (UnreachableError, UsageError, TimeoutError) as exc:
        raise UnreachableError("does not answer", "`tallystream status` shows what runs on this machine") from exc
    try:
        return ComponentReport.model_validate_json(body)
    except ValidationError as exc:
        raise UnreachableError(
            "does not report its status", "is it another version of tallystream? Update all components together"
        ) from exc
