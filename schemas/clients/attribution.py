"""Attribution: the resource attributes that say whom a cost belongs to. Attributes outside this table are never kept.

Names are in order of preference, and the first one present counts. They come from OpenTelemetry's semantic conventions
where one exists, and otherwise from what people set in OTEL_RESOURCE_ATTRIBUTES. docs/attribution.md shows the table to
users.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tallystream.schemas.clients.base import text
from tallystream.schemas.clients.payer import NOBODY, Payer, account_hash, billing_named
from tallystream.schemas.otlp.records import Value

SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "user": ("user.id", "enduser.id", "user.email", "user.name", "user"),
    "team": ("team", "team.name", "team.id", "team_name", "team_id"),
    "repo": ("repo", "repository", "repo.name", "vcs.repository.name", "vcs.repository.url.full", "git.repository"),
    "branch": ("branch", "vcs.ref.head.name", "git.branch"),
    "env": ("deployment.environment.name", "deployment.environment", "environment", "env"),
    "host": ("host.name", "host"),
    "cost_center": ("cost_center", "cost.center", "cost-center", "costcenter", "cost_centre", "cost.centre"),
    "agent": ("agent", "agent.name", "gen_ai.agent.name"),
    "billing": ("billing",),
    "account": ("account.id", "organization.id"),
}

_RANKS: Final = {name: (field, rank) for field, names in SOURCES.items() for rank, name in enumerate(names)}
_SCHEME: Final = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_USERINFO: Final = re.compile(r"^[^/]*@")


def attribution(resource: Mapping[str, Value]) -> dict[str, str]:
    """Return the attribution that a resource gives its records; the records themselves may add to it."""
    ranked: dict[str, tuple[int, str]] = {}
    for name, value in resource.items():
        place = _RANKS.get(name)
        if place is None:
            continue
        field, rank = place
        if (field not in ranked or rank < ranked[field][0]) and (kept := _kept(field, value)):
            ranked[field] = rank, kept
    return {field: ranked[field][1] for field in SOURCES if field in ranked}


def _kept(field: str, value: Value) -> str | None:
    if field == "repo":
        return text(repository(value))
    if field == "billing":
        return billing_named(value)
    return account_hash(value) if field == "account" else text(value)


def with_payer(found: dict[str, str], payer: Payer) -> dict[str, str]:
    """Return the attribution with the payer that a record names. What an operator set takes precedence."""
    if payer == NOBODY:
        return found
    return {name: value for name, value in payer._asdict().items() if value} | found


def with_user(found: dict[str, str], user: str | None) -> dict[str, str]:
    """Return the attribution with the user that a record names, if the resource names none.

    A value that an operator set for the process takes precedence over one that the client found by itself.
    """
    return found | {"user": user} if user and "user" not in found else found


def with_agent(found: dict[str, str], agent: str | None) -> dict[str, str]:
    """Return the attribution with the agent that a record names: the record is more specific than the process it comes
    from.
    """
    return found | {"agent": agent} if agent else found


def repository(value: Value) -> Value:
    """Return a repository's name or URL without what may be a secret: user information, query and fragment.

    `https://me:token@github.com/acme/app.git?x=1` and `git@github.com:acme/app.git` both give `github.com/acme/app`.
    """
    if not isinstance(value, str):
        return value
    path = re.split(r"[?#]", value.strip())[0]
    bare = _SCHEME.sub("", path)
    shown = _USERINFO.sub("", bare)
    if bare == path and shown != bare:
        # git@host:path, as ssh writes it
        shown = shown.replace(":", "/", 1)
    return shown.rstrip("/").removesuffix(".git")
