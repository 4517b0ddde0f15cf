"""Attribution: which resource attributes say whose cost it is. Nothing outside this table is ever kept.

Names in order of preference, the first that is there counts. They are OpenTelemetry's semantic conventions where there
is one, and otherwise what people set in OTEL_RESOURCE_ATTRIBUTES. docs/attribution.md shows the table to users.
"""

from __future__ import annotations

import re
from typing import Final

from tallystream.schemas.clients.base import bounded, text
from tallystream.schemas.otlp.records import Value

SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "user": ("user.id", "enduser.id", "user.email", "user.name", "user"),
    "team": ("team", "team.name", "team.id", "team_name", "team_id"),
    "repo": ("repo", "repository", "repo.name", "vcs.repository.name", "vcs.repository.url.full", "git.repository"),
    "branch": ("branch", "vcs.ref.head.name", "git.branch"),
    "env": ("deployment.environment.name", "deployment.environment", "environment", "env"),
    "host": ("host.name", "host"),
    "cost_center": ("cost_center", "cost.center", "cost-center", "costcenter", "cost_centre", "cost.centre"),
}

_SCHEME: Final = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_USERINFO: Final = re.compile(r"^[^/]*@")


def attribution(resource: dict[str, Value], user: str | None = None) -> dict[str, str]:
    """Return the attribution of a resource's records; `user` is what the record says, for want of the resource's.

    What an operator set for the process goes before what the client found out by itself.
    """
    found = {}
    for field, names in SOURCES.items():
        for name in names:
            if name in resource and (value := text(resource[name])):
                found[field] = value
                break
    if user and "user" not in found:
        found["user"] = user
    if "repo" in found:
        found["repo"] = repository(found["repo"])
    return found


def repository(value: str) -> str:
    """Return a repository's name or URL without what may be a secret: user information, query and fragment.

    `https://me:token@github.com/acme/app.git?x=1` and `git@github.com:acme/app.git` both give `github.com/acme/app`.
    """
    rest = _SCHEME.sub("", value)
    bare = _USERINFO.sub("", rest)
    if rest == value and bare == value:
        return value
    if rest == value:
        bare = bare.replace(":", "/", 1)
    return bounded(re.split(r"[?#]", bare)[0].rstrip("/").removesuffix(".git"))
