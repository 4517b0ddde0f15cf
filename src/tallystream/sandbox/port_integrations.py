"""Integrations as Ocean registers them, with their last sync and the samples of their kinds.

Source: port-labs/ocean, port_ocean/clients/port/mixins/integrations.py (POST and PATCH /v1/integration, POST
.../kinds/{kind}/examples) and port_ocean/clients/port/client.py (PATCH .../resync-state).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystream.sandbox.port_store import ChangeRefusedError, not_found


class Integrations:
    """All integrations, in memory. `examples` are the samples, by integration and kind."""

    def __init__(self) -> None:
        self._integrations: dict[str, dict[str, Any]] = {}
        self.examples: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def all(self) -> list[dict[str, Any]]:
        """Return the integrations, each with the samples of its kinds."""
        return [
            {
                **one,
                "examples": {kind: samples for (name, kind), samples in self.examples.items() if name == identifier},
            }
            for identifier, one in self._integrations.items()
        ]

    def get(self, identifier: str) -> dict[str, Any]:
        """Return one integration.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        if identifier not in self._integrations:
            raise not_found("integration", identifier)
        return self._integrations[identifier]

    def create(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Register an integration.

        Raises:
            ChangeRefusedError: it exists.

        """
        identifier = given["installationId"]
        if identifier in self._integrations:
            raise ChangeRefusedError(409, "identifier_taken", f"an integration '{identifier}' already exists")
        self._integrations[identifier] = dict(given)
        return self._integrations[identifier]

    def change(self, identifier: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the given fields.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        self.get(identifier).update(fields)
        return self.get(identifier)

    def delete(self, identifier: str) -> None:
        """Delete an integration and its samples.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        self.get(identifier)
        del self._integrations[identifier]
        self.examples = {key: samples for key, samples in self.examples.items() if key[0] != identifier}

    def sync(self, identifier: str, state: Mapping[str, Any], moment: str) -> dict[str, Any]:
        """Change the state of the last sync: a field that is not given stays.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        found = self.get(identifier)
        found["resyncState"] = {**found.get("resyncState", {}), **state, "updatedAt": moment}
        return found

    def keep(self, identifier: str, kind: str, examples: list[dict[str, Any]]) -> None:
        """Keep samples of a kind, instead of earlier ones.

        Raises:
            ChangeRefusedError: the integration does not exist.

        """
        self.get(identifier)
        self.examples[identifier, kind] = examples
