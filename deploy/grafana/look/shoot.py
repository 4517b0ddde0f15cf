"""Run every panel's queries, let Grafana's components draw the results, and take a picture of each dashboard.

Needs `npm install` in a folder with package.json, and Chromium on PATH. With your own Prometheus:

    python -m deploy.grafana.look.shoot http://127.0.0.1:9090 --npm FOLDER --out build/dashboards --since 3600
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DASHBOARDS = HERE.parent / "dashboards"
WIDTH, CELL = 1600, 38
RATE = "1m"
ESBUILD = (
    "draw.tsx", "--bundle", "--minify", "--jsx=automatic", "--outfile=board.js", "--log-level=error",
    '--define:process.env.NODE_ENV="production"', "--loader:.svg=text", "--loader:.woff2=dataurl", "--loader:.png=dataurl",
    "--loader:.ttf=empty", "--alias:react-custom-scrollbars-2=./scrollbars.js",
)  # fmt: skip


def filled(expr: str, span: int) -> str:
    """Fill in the variables as Grafana does when everything is selected; `span` is in seconds."""
    expr = expr.replace("$__range_s", str(span)).replace("$__range", f"{span}s").replace("$__rate_interval", RATE)
    return re.sub(r'=~"\$\w+"', '=~".*"', expr)


def ask(prometheus: str, path: str, **arguments: str) -> list[dict[str, Any]]:
    """Return the series of a query."""
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - an address that was given
        found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    return found


def name_of(metric: dict[str, str], legend: str) -> str:
    """Return the name that Grafana gives a series."""
    if legend == "__auto":
        return ", ".join(f'{key}="{value}"' for key, value in metric.items()) or "Value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: metric.get(found[1], ""), legend)


def answer(prometheus: str, target: dict[str, Any], start: int, end: int) -> list[dict[str, Any]]:
    """Return a target's series as draw.tsx expects them: times in ms, None for missing values."""
    expr, step = filled(target["expr"], end - start), max(1, (end - start) // 240)
    if target["instant"]:
        found = [(one["metric"], [one["value"]]) for one in ask(prometheus, "query", query=expr, time=str(end))]
        grid = [end]
    else:
        arguments = {"query": expr, "start": str(start), "end": str(end), "step": str(step)}
        found = [(one["metric"], one["values"]) for one in ask(prometheus, "query_range", **arguments)]
        grid = list(range(start, end + 1, step))
    series = []
    for metric, samples in found:
        at = {int(moment): value for moment, value in samples}
        values = [None if at.get(moment, "NaN") == "NaN" else float(at[moment]) for moment in grid]
        labels = {key: value for key, value in metric.items() if key != "__name__"}
        series.append(
            {
                "refId": target["refId"],
                "name": name_of(metric, target["legendFormat"]),
                "labels": labels,
                "times": [moment * 1000 for moment in grid],
                "values": values,
            }
        )
    return series


def shot(prometheus: str, dashboard: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return a dashboard with the results of its queries from `start` to `end` (Unix seconds)."""
    answers = {
        str(panel["id"]): [answer(prometheus, target, start, end) for target in panel["targets"]]
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    }
    return {"dashboard": dashboard, "answers": answers, "from": start * 1000, "to": end * 1000, "width": WIDTH}


def bundle(npm: Path) -> Path:
    """Return a page's script, bundled from draw.tsx and the packages in `npm`."""
    for name in ("draw.tsx", "scrollbars.js"):
        shutil.copy(HERE / name, npm / name)
    argv = [str(npm / "node_modules" / ".bin" / "esbuild"), *ESBUILD]
    subprocess.run(argv, cwd=npm, check=True, timeout=300)  # noqa: S603 - of the package that was asked for
    return npm / "board.js"


def photograph(script: Path, one: dict[str, Any], out: Path) -> dict[str, str]:
    """Write `out`.png and return the state of each panel by title: drawn, empty or failed."""
    panels = one["dashboard"]["panels"]
    height = CELL * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + 24
    page = out.with_suffix(".html")
    data = json.dumps(one).replace("</", "<\\/")
    style = script.with_suffix(".css")
    look = f'<link rel="stylesheet" href="{style.as_uri()}">' if style.exists() else ""
    page.write_text(
        f"<!doctype html><meta charset=utf-8><title>look</title>{look}"
        '<body style="margin:0;background:#111217"><div id="board"></div>'
        f'<script>window.SHOT={data}</script><script src="{script.as_uri()}"></script>'
    )
    browser = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000",
        f"--window-size={WIDTH},{height}",
    ]  # fmt: skip
    try:
        _run([*browser, f"--screenshot={out.with_suffix('.png')}", page.as_uri()])
        document = _run([*browser, "--dump-dom", page.as_uri()])
    finally:
        page.unlink()
    failed = dict(re.findall(r'<pre data-failed="(\w+)">([^<]*)', document))
    if "all" in failed:
        raise RuntimeError(failed["all"])
    state = dict(re.findall(r'data-panel="(\d+)" data-state="(\w+)"', document))
    states = {}
    for panel in panels:
        if panel["type"] != "row":
            number = str(panel["id"])
            states[panel["title"]] = f"failed: {failed[number]}" if number in failed else state.get(number, "missing")
    return states


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - a browser, our page
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def shoot(prometheus: str, npm: Path, out: Path, start: int, end: int) -> dict[str, dict[str, str]]:
    """Take a picture of every dashboard from `start` to `end`; return each panel's state, by dashboard and title."""
    out.mkdir(parents=True, exist_ok=True)
    script = bundle(npm)
    return {
        path.stem: photograph(script, shot(prometheus, json.loads(path.read_text()), start, end), out / path.stem)
        for path in sorted(DASHBOARDS.glob("*.json"))
    }


def main() -> None:
    """Draw the data of a running Prometheus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus", help="its base URL")
    parser.add_argument("--npm", type=Path, required=True, help="folder with package.json's packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--since", type=int, default=3600, help="seconds to look back")
    parser.add_argument("--until", type=int, default=int(time.time()), help="Unix seconds; default: now")
    chosen = parser.parse_args()
    npm, out, end = chosen.npm.resolve(), chosen.out.resolve(), chosen.until
    for name, panels in shoot(chosen.prometheus, npm, out, end - chosen.since, end).items():
        for title, state in panels.items():
            print(f"{name}: {title}: {state}")  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
