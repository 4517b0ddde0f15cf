"""The teams, users and services that Port has. Entities relate only to these, and none is ever created.

In Port, an entity of `_team` or `_user` *is* a team or a user, and `create_missing_related_entities` would create one
(port-labs/port-docs, docs/sso-rbac/users-and-teams/manage-users-teams.md). Without it, Port refuses the whole entity
with 404 when one of its relations names something that does not exist (docs/port.md, facts in Port's OpenAPI: bulk
upserts answer 207 with a result for each entity). So a relation to an owner that Port does not have is left out, and
set as soon as Port has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import structlog

from tallystream.agents.port_sink.blueprints import OWNERSHIP, SYSTEM
from tallystream.agents.port_sink.errors import PortError
from tallystream.agents.port_sink.port import api
from tallystream.agents.port_sink.port.client import PortClient

log = structlog.get_logger()


class RelatedEntities:
    """The identifiers of entities that ours may relate to, by blueprint, as Port had them when it was last asked."""

    def __init__(self) -> None:
        self.known: dict[str, AbstractSet[str]] = {}

    async def refresh(self, client: PortClient, blueprints: Iterable[Mapping[str, object]], *, ownership: bool) -> None:
        """Ask Port for what these blueprints relate to; without `ownership`, our own relations to owners do not count.

        What cannot be read stays as it was, and the failure is logged: delivery does not depend on it. Relations to
        what was never read are left out of entities.
        """
        for target in sorted(owners(blueprints, ownership=ownership)):
            try:
                self.known[target] = await api.identifiers(client, target)
            except PortError as exc:
                log.warning("owners_not_read", blueprint=target, why=exc.message, hint=exc.hint)


def owners(blueprints: Iterable[Mapping[str, object]], *, ownership: bool = True) -> set[str]:
    """Return the blueprints whose entities must exist before a relation names them."""
    found = set()
    for one in blueprints:
        relations = one.get("relations")
        ours = OWNERSHIP.get(str(one.get("identifier")), {})
        for name, rule in (relations if isinstance(relations, Mapping) else {}).items():
            if (name in ours and ownership) or (name not in ours and rule["target"] in SYSTEM):
                found.add(str(rule["target"]))
    return found
