"""Write the dashboards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.grafana.code import bills, pipeline, port_openai, spend
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"
BOARDS = {
    "spend.json": spend.build,
    "bills.json": bills.build,
    "pipeline.json": pipeline.build,
    "port-openai.json": port_openai.build,
}


def render(board: dashboard.Dashboard) -> str:
    """Return the dashboard's JSON."""
    built = board.build()
    for number, panel in enumerate(built.panels or (), start=1):  # the SDK gives all of them 0, or none
        panel.id_val = number
    document = json.loads(JSONEncoder().encode(built))
    _without_what_grafana_does_not_know(document)
    return json.dumps(document, sort_keys=True, indent=2) + "\n"


def _without_what_grafana_does_not_know(document: dict[str, Any]) -> None:
    """Mend what the SDK writes against Grafana's own schema: `make dashboards-check` finds it."""
    del document["style"]
    for variable in document["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min", "id"):
            del variable[key]
    for panel in document["panels"]:
        panel.get("options", {}).pop("footer", None)  # tables had one before Grafana 12


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, build in BOARDS.items():
        (FOLDER / name).write_text(render(build()))


if __name__ == "__main__":
    main()
