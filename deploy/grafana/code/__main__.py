"""Writes the dashboards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.grafana.code import bills, ledger, pipeline, port_openai, spend
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).resolve().parents[1]
BOARDS = {
    "dashboards/spend.json": spend.build,
    "dashboards/bills.json": bills.build,
    "dashboards/pipeline.json": pipeline.build,
    "dashboards/port-openai.json": port_openai.build,
    "postgresql/ledger.json": ledger.build,
}
"""Of those in `postgresql`, each needs a data source that only some installations have."""


def render(board: dashboard.Dashboard) -> str:
    """Return the dashboard's JSON."""
    built = board.build()
    for number, panel in enumerate(built.panels or (), start=1):  # the SDK sets 0 for all of them, or nothing
        panel.id_val = number
    document = json.loads(JSONEncoder().encode(built))
    _without_what_grafana_does_not_know(document)
    return json.dumps(document, sort_keys=True, indent=2) + "\n"


def _without_what_grafana_does_not_know(document: dict[str, Any]) -> None:
    """Remove fields that the SDK writes but Grafana's schema does not allow (`make dashboards-check` reports them)."""
    del document["style"]
    for variable in document["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min", "id"):
            variable.pop(key, None)
    for panel in document["panels"]:
        (panel.get("options") or {}).pop("footer", None)  # tables had one before Grafana 12


def main() -> None:
    """Write all dashboards."""
    for name, build in BOARDS.items():
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_text(render(build()))


if __name__ == "__main__":
    main()
