"""The dashboards must match Grafana's TypeScript types and use only known keys, which the types do not check.

`make dashboards-check` fetches the types (npm) and runs all of it; without them, the keys alone are checked.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
BOARDS = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
LEDGER = DASHBOARDS.parent / "postgresql" / "ledger.json"
TYPES = os.environ.get("TALLYSTREAM_GRAFANA_TYPES")
TSC = ("--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")
needs_types = pytest.mark.skipif(TYPES is None, reason="needs Grafana's types: make dashboards-check")

# By path, with list items unnumbered; keys below OPEN are names of columns.
OPEN = ("panels.transformations.options.excludeByName", "panels.transformations.options.renameByName")
SOURCE = "type uid"
STAT = "colorMode graphMode justifyMode orientation reduceOptions textMode"
KEYS = {
    "": "annotations description editable fiscalYearStartMonth graphTooltip panels refresh schemaVersion tags"
    " templating time timezone title uid",
    "time": "from to",
    "templating": "list",
    "templating.list": "allValue current datasource hide includeAll label multi name query refresh skipUrlSync"
    " sort type",
    "templating.list.current": "selected text value",
    "templating.list.datasource": SOURCE,
    "panels": "collapsed datasource description fieldConfig gridPos id links options panels repeatDirection targets"
    " title transformations transparent type",
    "panels.datasource": SOURCE,
    "panels.gridPos": "h w x y",
    "panels.links": "targetBlank title url",
    "panels.fieldConfig": "defaults overrides",
    "panels.fieldConfig.defaults": "color custom decimals links mappings max min noValue thresholds unit",
    "panels.fieldConfig.defaults.color": "fixedColor mode",
    "panels.fieldConfig.defaults.custom": "align axisSoftMax cellOptions drawStyle fillOpacity lineInterpolation"
    " lineWidth scaleDistribution showPoints spanNulls stacking thresholdsStyle",
    "panels.fieldConfig.defaults.custom.scaleDistribution": "linearThreshold log type",
    "panels.fieldConfig.defaults.custom.stacking": "group mode",
    "panels.fieldConfig.defaults.custom.thresholdsStyle": "mode",
    "panels.fieldConfig.defaults.thresholds": "mode steps",
    "panels.fieldConfig.defaults.thresholds.steps": "color value",
    "panels.fieldConfig.overrides": "matcher properties",
    "panels.fieldConfig.overrides.matcher": "id options",
    "panels.fieldConfig.overrides.properties": "id value",
    "panels.options": f"{STAT} cellHeight displayMode frameIndex legend minVizHeight minVizWidth namePlacement"
    " showHeader showTypeIcons showUnfilled sizing sortBy text tooltip valueMode",
    "panels.options.legend": "calcs displayMode placement showLegend",
    "panels.options.reduceOptions": "calcs fields values",
    "panels.options.sortBy": "desc displayName",
    "panels.options.text": "titleSize valueSize",
    "panels.options.tooltip": "mode sort",
    "panels.targets": "datasource editorMode expr format instant legendFormat range rawQuery rawSql refId",
    "panels.targets.datasource": SOURCE,
    "panels.transformations": "id options",
    "panels.transformations.options": "byField excludeByName indexByName mode renameByName",
}


def load(board: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DASHBOARDS / f"{board}.json").read_text())
    return document


def unknown(node: object, place: str = "") -> Iterator[str]:
    """Yield the paths of keys that are not in the lists above."""
    if isinstance(node, list):
        for one in node:
            yield from unknown(one, place)
    elif isinstance(node, dict) and place not in OPEN:
        for key, value in node.items():
            if key not in KEYS.get(place, "").split():
                yield f"{place}.{key}"
            else:
                yield from unknown(value, f"{place}.{key}".lstrip("."))


@pytest.mark.parametrize("board", BOARDS)
def test_dashboards_use_only_keys_known_to_grafana(board: str) -> None:
    assert not list(unknown(load(board)))


def test_ledger_dashboard_uses_only_keys_known_to_grafana() -> None:
    assert not list(unknown(json.loads(LEDGER.read_text())))


def test_misspelled_dashboard_key_is_found() -> None:
    document = load("spend")
    document["panels"][1]["fieldConfig"]["defaults"]["decimal"] = 2
    document["refersh"] = "30s"
    assert sorted(unknown(document)) == [".refersh", "panels.fieldConfig.defaults.decimal"]


def complaints(document: dict[str, Any], name: str) -> str:
    """Return the TypeScript compiler's errors for a dashboard."""
    assert TYPES is not None
    folder = Path(TYPES)
    text = json.dumps(document, indent=1)
    (folder / f"{name}.ts").write_text(
        f"import type {{ Checked }} from './types';\nexport const d = {text} satisfies Checked;\n"
    )
    argv = [str(folder / "node_modules" / ".bin" / "tsc"), *TSC, f"{name}.ts"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


@needs_types
@pytest.mark.parametrize("board", BOARDS)
def test_dashboards_pass_grafanas_types(board: str) -> None:
    assert not complaints(load(board), board)


def _wrong_mode(panel: dict[str, Any]) -> None:
    panel["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative"


def _wrong_width(panel: dict[str, Any]) -> None:
    panel["gridPos"]["w"] = "4"


def _wrong_option(panel: dict[str, Any]) -> None:
    panel["options"]["colorMode"] = "values"


def _wrong_query(panel: dict[str, Any]) -> None:
    panel["targets"][0]["instant"] = "yes"


@needs_types
@pytest.mark.parametrize("spoil", [_wrong_mode, _wrong_width, _wrong_option, _wrong_query])
def test_grafanas_types_refuse_a_wrong_value(spoil: Callable[[dict[str, Any]], None]) -> None:
    document = copy.deepcopy(load("spend"))
    spoil(next(panel for panel in document["panels"] if panel["type"] == "stat"))
    assert "error TS" in complaints(document, f"planted{spoil.__name__}")
