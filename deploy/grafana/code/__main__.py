"""Write the dashboards."""

from __future__ import annotations

from pathlib import Path

from deploy.grafana.code import pipeline, port_openai, spend
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"
BOARDS = {"spend.json": spend.build, "pipeline.json": pipeline.build, "port-openai.json": port_openai.build}


def render(board: dashboard.Dashboard) -> str:
    """Return the dashboard's JSON."""
    built = board.build()
    for number, panel in enumerate(built.panels or (), start=1):  # the SDK gives all of them 0, or none
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, build in BOARDS.items():
        (FOLDER / name).write_text(render(build()))


if __name__ == "__main__":
    main()
