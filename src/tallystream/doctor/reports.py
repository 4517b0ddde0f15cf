"""Reads the typed status of the components that `up` runs here."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from tallystream.doctor.model import DoctorContext
from tallystream.schemas.errors import UnreachableError
from tallystream.supervisor.ops_client import read_report

T = TypeVar("T", bound=BaseModel)


async def details(context: DoctorContext, kind: type[T]) -> list[T]:
    """Return the details of one kind of component. One that does not answer is left to the check of components."""
    found: list[T] = []
    for one in context.run.components if context.run else ():
        if one.ops_url is None:
            continue
        try:
            report = await read_report(one.ops_url)
        except UnreachableError:
            continue
        if isinstance(report.detail, kind):
            found.append(report.detail)
    return found
