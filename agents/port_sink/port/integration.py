"""The integration that Port lists among its data sources: registration, last sync, samples of records.

Port's OpenAPI has GET and PATCH of an integration; the other calls are as Ocean makes them: port-labs/ocean,
port_ocean/clients/port/mixins/integrations.py (`create_integration`, `ingest_integration_kind_examples`) and
port_ocean/clients/port/client.py (`update_integration_state`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from tallystream.agents.port_sink.port.client import PortClient
from tallystream.schemas import exact

TYPE = "custom"
"""Port's page registers its integration under this type."""


async def get(client: PortClient) -> dict[str, Any] | None:
    """Return the integration of our identifier, None when there is none.

    Raises:
        PortError: Port does not answer.

    """
    answer = await client.find(_path(client))
    if answer is None:
        return None
    found = answer.body.get("integration")
    return found if isinstance(found, dict) else {}


async def create(client: PortClient, version: str, config: Mapping[str, object]) -> None:
    """Register the integration; `config` is the mapping in use. Port is not asked to create anything for it.

    Raises:
        PortError: Port refuses it.

    """
    body = {
        "installationId": client.config.identifier,
        "installationAppType": TYPE,
        "version": version,
        "changelogDestination": {},
        "config": config,
        "actionsProcessingEnabled": False,
        "createPortResourcesOrigin": "Ocean",
    }
    await client.request("POST", "/integration", body=orjson.dumps(body))


async def change(client: PortClient, version: str, config: Mapping[str, object]) -> None:
    """Change version and mapping.

    Raises:
        PortError: Port refuses it.

    """
    await client.request("PATCH", _path(client), body=orjson.dumps({"version": version, "config": config}))


async def set_state(client: PortClient, state: Mapping[str, object]) -> None:
    """Say how the last sync went: `status` (running, completed, failed), `lastResyncStart`, `lastResyncEnd`,
    `nextResync` (ISO 8601), and `intervalInMinuets`, as Ocean spells it.

    Raises:
        PortError: Port refuses it.

    """
    await client.request("PATCH", f"{_path(client)}/resync-state", body=orjson.dumps(state))


async def send_examples(client: PortClient, kind: str, records: Sequence[object]) -> None:
    """Show samples of a kind's records in Port's mapping editor. They must be masked.

    Raises:
        PortError: Port refuses them.

    """
    body = exact.dumps({"examples": list(records)}).encode()
    await client.request("POST", f"{_path(client)}/kinds/{quote(kind, safe='')}/examples", body=body)


def _path(client: PortClient) -> str:
    return f"/integration/{quote(client.config.identifier, safe='')}"
