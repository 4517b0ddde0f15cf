"""Checks the poller's state: keys, each resource's last polls, and days that are not updated."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from tallystream.doctor.model import Check, DoctorContext, Finding, Section
from tallystream.doctor.reports import details
from tallystream.schemas.status import PollerStatus, ResourceStatus

NAMED = 3
"""Maximum number of resources that a finding names."""


async def look(context: DoctorContext) -> list[Finding]:
    """Report the problems of the poller."""
    return [finding for status in await details(context, PollerStatus) for finding in judge(status)]


def judge(status: PollerStatus) -> list[Finding]:
    """Return the problems of a poller. Pure. Resources that fail for the same reason are one finding."""
    failing: dict[tuple[str, str], list[ResourceStatus]] = {}
    for one in status.resources:
        if one.reason is not None:
            failing.setdefault((one.message, one.next_step), []).append(one)
    found = [
        Finding("openai", f"{_names(ones)} cannot be polled: {message}", step or "the poller tries again by itself")
        for (message, step), ones in failing.items()
    ]
    if days := status.held_days.get("invalid"):
        found.append(
            Finding(
                "openai",
                f"{_days(days)} the figures they had: an amount in an answer cannot be used",
                "`tallystream deadletters list --reason invalid_bill` names the amounts",
            )
        )
    if days := status.held_days.get("incomplete"):
        found.append(
            Finding(
                "openai",
                f"{_days(days)} the figures they had: not all usage endpoints have answered for them",
                "mend the usage resources that fail, or disable those that you have no key for",
            )
        )
    found += [
        Finding("openai", why, "change the mapping, or declare a resource (docs/operations/openai.md)")
        for why in status.not_polled
    ]
    return found


async def describe(context: DoctorContext) -> Section | None:
    """Return the section on the poller, None if `up` does not run here."""
    if context.run is None:
        return None
    statuses = await details(context, PollerStatus)
    if not statuses:
        return Section("OpenAI", [("not polled", "no key is set: TALLYSTREAM_OPENAI_API_TOKEN")])
    return Section("OpenAI", [line for status in statuses for line in lines(status)])


def lines(status: PollerStatus) -> list[tuple[str, str]]:
    """Return what is known, by name. Pure."""
    role = "active" if status.active else "standby"
    found = [("poller", f"{role}, polls every {status.interval_seconds / 60:g} minutes")]
    kinds = sorted({one.key for one in status.resources} | set(status.keys))
    for kind in kinds:
        ones = [one for one in status.resources if one.key == kind]
        works = sum(one.last_success_at is not None and one.reason is None for one in ones)
        refused = [one.name for one in ones if one.reason in ("unauthorised", "forbidden")]
        text = "set" if kind in status.keys else "not set, the API key is tried"
        text += f"; {works} of {len(ones)} resources answered"
        found.append((f"{kind} key", text + (f"; refused for {', '.join(refused)}" if refused else "")))
    found += [(one.name, _said(one)) for one in status.resources]
    return found


def _said(one: ResourceStatus) -> str:
    if one.reason is None:
        return "not polled yet" if one.last_success_at is None else f"succeeded {_time(one.last_success_at)}"
    last = "never since the start" if one.last_success_at is None else _time(one.last_success_at)
    failed = "" if one.last_failure_at is None else f" {_time(one.last_failure_at)}"
    return f"failed{failed} ({one.reason}), succeeded {last}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _names(ones: Iterable[ResourceStatus]) -> str:
    names = [one.name for one in ones]
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _days(days: int) -> str:
    return f"{days} day keeps" if days == 1 else f"{days} days keep"


CHECK = Check("openai", look, describe=describe)
