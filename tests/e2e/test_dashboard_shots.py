"""Grafana's own components draw every dashboard from a running pipeline, and a browser takes pictures.

`make dashboards-shots` fetches the components (npm) and runs it; the pictures are for people to look at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from deploy.grafana.look.shoot import shoot
from tests.e2e.test_dashboards import sandbox, undecodable
from tests.support.product import Product, product
from tests.support.prometheus import needs_prometheus, prometheus
from tests.support.waiting import eventually

NPM = os.environ.get("TALLYSTREAM_GRAFANA_UI")
OUT = Path(os.environ.get("TALLYSTREAM_DASHBOARD_SHOTS", "build/dashboards"))
SCRAPES = 150
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    needs_prometheus,
    pytest.mark.skipif(NPM is None or shutil.which("chromium") is None, reason="make dashboards-shots"),
]
FLEETS = {"laptop": (5, 4), "build-agents": (12, 8), "research": (3, 2)}


def fleet(running: Product, folder: Path, name: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    agents, rate = FLEETS[name]
    document = running.json("connections", "create", "codex", "--name", name)
    connection = folder / f"{name}.json"
    connection.write_text(json.dumps(document))
    argv = running.command(
        "simulate", "--connection", str(connection), "--agents", str(agents), "--requests", "100000",
        "--seed", str(agents), "--rate", str(rate), "--duplicates", "0.1", "--late", "0.05",
    )  # fmt: skip
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(argv, env=running.environment, stdout=log, stderr=log), document


def test_grafana_draws_every_panel(tmp_path: Path) -> None:
    assert NPM is not None
    with sandbox() as environment, product(tmp_path / "data", environment, "--workers", "2") as running:
        targets = {one["name"]: one["ops_url"].removeprefix("http://") for one in running.run_file()["components"]}
        with prometheus(tmp_path / "prometheus", targets) as asked:
            start = int(time.time())
            fleets = [fleet(running, tmp_path, name) for name in FLEETS]
            try:
                undecodable(dict(fleets[0][1]))
                scraped = f'count_over_time(up{{component="gateway"}}[1h]) > {SCRAPES}'
                eventually(lambda: asked.query(scraped), "there is something to see", 4 * SCRAPES)
                assert all(process.poll() is None for process, _ in fleets)
                found = shoot(asked.url, Path(NPM), OUT.resolve(), start, int(time.time()))
            finally:
                for process, _ in fleets:
                    process.terminate()
                    process.wait(60)
    wrong = {
        f"{board}: {title}": state
        for board, panels in found.items()
        for title, state in panels.items()
        if state != "drawn"
    }
    assert not wrong
    assert len(found) == 3
    assert all((OUT / f"{board}.png").stat().st_size > 50_000 for board in found)
