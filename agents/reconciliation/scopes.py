"""Account scopes: the connected components of the operator's map of connections to keys and projects. Pure.

The members of a component cannot be separated, so it is reconciled as one. Unmapped accounts form the scope `outside`,
unmapped connections the scope `unmapped`: the parts always add up to the provider's whole bill and to everything that
telemetry saw. Until anything of a provider is mapped, all of it is one scope, `all`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tallystream.agents.reconciliation.seen import connection_of
from tallystream.schemas.billing.accounts import AccountLink

ALL, OUTSIDE, UNMAPPED, PLAN = "all", "outside", "unmapped", "plan"
Node = tuple[str, str]


@dataclass
class AccountScope:
    """One component, named after its first connection."""

    name: str
    connections: set[str] = field(default_factory=set)
    projects: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)


class Scopes:
    """The scopes of one provider. `projects_of` says which project a key belongs to, where that is known."""

    def __init__(self, links: Iterable[AccountLink], projects_of: Mapping[str, str]) -> None:
        mapped = list(links)
        self._plans = {link.connection_id for link in mapped if link.billing == "plan"}
        self._whole = not any(link.billing == "api" for link in mapped)
        self.scopes = {} if self._whole else _components(mapped, projects_of)
        self._connections = {one: scope.name for scope in self.scopes.values() for one in scope.connections}
        self._projects = {one: scope.name for scope in self.scopes.values() for one in scope.projects}
        self._keys = {one: scope.name for scope in self.scopes.values() for one in scope.keys}
        self._projects_of = dict(projects_of)

    def of_connection(self, connection_id: str) -> str:
        """Return the scope that telemetry of a connection is in; usage that says a plan pays is always the plan's."""
        connection_id, plan = connection_of(connection_id)
        if plan:
            return PLAN
        if connection_id in self._connections:
            return self._connections[connection_id]
        if connection_id in self._plans:
            return PLAN
        return ALL if self._whole else UNMAPPED

    def of_account(self, project_id: str | None, api_key_id: str | None) -> str:
        """Return the scope that a line of the bill or of the usage report is in."""
        if self._whole:
            return ALL
        if api_key_id in self._keys:
            return self._keys[api_key_id]
        return self._projects.get(project_id or "", OUTSIDE)

    def own_key(self, api_key_id: str | None) -> str | None:
        """Return the scope of a key that is mapped by itself, not by its project; None for any other key."""
        if api_key_id is None or self._projects_of.get(api_key_id) in self._projects:
            return None
        return self._keys.get(api_key_id)

    @property
    def by_key(self) -> bool:
        """Whether a scope needs the cost of each key."""
        return any(self.own_key(one) for one in self._keys)

    def members(self, name: str) -> AccountScope:
        """Return the members of the scope with this name."""
        return self.scopes.get(name) or AccountScope(name)


def _components(links: Iterable[AccountLink], projects_of: Mapping[str, str]) -> dict[str, AccountScope]:
    parents: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for link in links:
        if link.billing == "api":
            account = ("key", link.api_key_id) if link.api_key_id else ("project", link.project_id or "")
            parents[root(("connection", link.connection_id))] = root(account)
    for kind, name in list(parents):
        # A key of a project that is mapped as a whole cannot be told apart from it.
        project = ("project", projects_of.get(name, ""))
        if kind == "key" and project in parents:
            parents[root((kind, name))] = root(project)
    found: dict[Node, AccountScope] = {}
    for kind, name in sorted(parents):
        scope = found.setdefault(root((kind, name)), AccountScope(""))
        {"connection": scope.connections, "project": scope.projects, "key": scope.keys}[kind].add(name)
    for scope in found.values():
        scope.name = min(scope.connections)
    return {scope.name: scope for scope in found.values()}
