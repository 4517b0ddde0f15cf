"""Metrics must be documented, bounded and regularly named; rules and dashboards must use existing ones."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from deploy.grafana.code.__main__ import BOARDS, render
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tallystream.components.renamed_metrics import OLD_NAMES, WithOldNames
from tallystream.reference import metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
OTHERS = {"up", "ALERTS", "process_cpu_seconds_total", "process_start_time_seconds", "process_resident_memory_bytes"}
promtool = shutil.which("promtool")
amtool = shutil.which("amtool")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not installed: `make tools`")


def rules() -> list[dict[str, Any]]:
    """Return every rule of ours."""
    return [
        rule
        for path in sorted((RULES / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every panel that shows something, with its dashboard."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row":
                yield path.stem, panel


def queries() -> list[str]:
    """Return every expression of rules and dashboards, variables filled in."""
    found = [rule["expr"] for rule in rules()]
    return found + [filled(target["expr"]) for _, panel in panels() for target in panel["targets"]]


def filled(expr: str) -> str:
    expr = expr.replace("$__range_s", "300")
    return re.sub(r"\$__range|\$__rate_interval", "5m", expr).replace('=~"$', '=~"')


def run(*argv: str | Path | None, stdin: str | None = None) -> str:
    done = subprocess.run(
        [str(one) for one in argv], input=stdin, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_metrics_page_matches_the_code() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics.render(), "run `make docs`"


def test_labels_and_their_explanations_match() -> None:
    assert {label for family in metrics.families() for label in family.labels} == set(metrics.LABELS)


def test_metric_names_are_regular_explained_and_unique() -> None:
    names = [family.name for family in metrics.families()]
    assert len(set(names)) == len(names)
    for family in metrics.families():
        if not family.name.startswith("kafka_consumergroup_"):  # kafka_exporter's and kafka-lag-exporter's names
            assert re.fullmatch(rf"tallystream_{family.component}_[a-z][a-z_]*[a-z]", family.name), family
        assert family.name.endswith("_total") == (family.kind == "counter"), family
        if family.kind == "histogram":
            assert family.name.endswith(("_seconds", "_bytes")), family
        assert family.text.endswith(".") or len(family.text) > 20, family


def test_renamed_metric_is_served_under_both_names() -> None:
    registry = CollectorRegistry()
    counter = Counter("tallystream_worker_late_events", "Late.", registry=registry)
    seconds = Histogram("tallystream_worker_group_commit_seconds", "Seconds.", registry=registry)
    lag = Gauge("tallystream_worker_lag_messages", "Lag.", ["partition"], registry=registry)
    Counter("tallystream_worker_gaps", "Was never called otherwise.", registry=registry)
    counter.inc(3)
    seconds.observe(0.2)
    lag.labels("7").set(5)
    both = list(WithOldNames(registry).collect())
    shown = {sample.name: (sample.labels, sample.value) for metric in both for sample in metric.samples}
    assert shown["tallystream_late_events_total"] == shown["tallystream_worker_late_events_total"] == ({}, 3)
    assert shown["tallystream_group_commit_seconds_sum"] == ({}, 0.2)
    assert shown["tallystream_group_commit_seconds_bucket"] == shown["tallystream_worker_group_commit_seconds_bucket"]
    assert shown["tallystream_worker_lag"] == ({"partition": "7"}, 5)
    assert len([metric for metric in both if "gaps" in metric.name]) == 1


def test_old_metric_names_belong_to_existing_metrics_and_are_not_reused() -> None:
    known = {family.base for family in metrics.families()}
    assert set(OLD_NAMES) <= known
    assert not known & set(OLD_NAMES.values())
    assert len(set(OLD_NAMES.values())) == len(OLD_NAMES)


def test_rules_and_dashboards_use_existing_metrics() -> None:
    known = {name for family in metrics.families() for name in family.series}
    known |= {rule["record"] for rule in rules() if "record" in rule} | OTHERS
    for query in queries():
        found = set(re.findall(r"\b(?:tallystream[_:]|kafka_consumergroup_)[\w:]+", query))
        found = {name for name in found if not name.endswith("_")}  # the beginning of a regular expression
        assert found <= known, query


def test_all_queries_are_valid_promql() -> None:
    for query in queries():
        promql_parser.parse(query)
    with pytest.raises(ValueError, match="invalid promql"):
        promql_parser.parse("sum by (a rate(b[5m]))")


def test_committed_dashboards_match_the_code() -> None:
    folder = DASHBOARDS.parent
    written = {
        path.relative_to(folder).as_posix()
        for name in ("dashboards", "postgresql")
        for path in (folder / name).iterdir()
    }
    assert written == set(BOARDS)
    for name, build in BOARDS.items():
        assert (folder / name).read_text() == render(build()), "run `make docs`"


def test_panels_have_unique_ids_positions_and_queries() -> None:
    for board, panel in panels():
        assert panel["targets"], (board, panel["title"])
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFGH"[: len(panel["targets"])]]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        assert 0 <= place["x"] <= 24 - place["w"]
    for path in DASHBOARDS.glob("*.json"):
        document = json.loads(path.read_text())
        titles = [panel["title"] for panel in document["panels"] if panel["type"] != "row"]
        assert len(set(titles)) == len(titles)
        ids = [panel["id"] for panel in document["panels"]]
        assert len(set(ids)) == len(ids)
        covered: set[tuple[int, int]] = set()
        for panel in document["panels"]:
            place = panel["gridPos"]
            area = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not area & covered, panel["title"]
            covered |= area


def test_every_alert_has_a_runbook_and_a_severity() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {heading.lower() for heading in headings}, alert["alert"]
    page = (ROOT / "docs" / "operations" / "alerts.md").read_text()
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == {alert["alert"] for alert in alerts()}


def test_every_alert_is_tested_both_firing_and_silent() -> None:
    seen: dict[str, set[bool]] = {}
    for path in (RULES / "tests").glob("*.yml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test["promql_expr_test"]:
                name = re.search(r'alertname="(\w+)"', check["expr"])
                if name is None and check["expr"].startswith("tallystream:"):
                    continue  # what an alert is made of
                assert name is not None
                seen.setdefault(name[1], set()).add(bool(check["exp_samples"]))
    assert seen == {alert["alert"]: {True, False} for alert in alerts()}


def test_runbook_links_of_alerts_exist() -> None:
    page = ROOT / "docs" / "operations" / "alerts.md"
    links = re.findall(r"\]\(([\w./-]+\.md)\)", page.read_text())
    assert links
    assert all((page.parent / link).is_file() for link in links)


@needs_promtool
def test_promtool_accepts_the_rules_and_the_example_configuration() -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *sorted((RULES / "rules").glob("*.yml")))
    run(promtool, "check", "config", RULES / "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("path", sorted((RULES / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alert_rules_pass_their_promtool_tests(path: Path) -> None:
    run(promtool, "test", "rules", path)


@pytest.mark.skipif(amtool is None, reason="amtool is not installed: `make tools`")
@pytest.mark.parametrize("path", sorted(ALERTMANAGER.glob("*.yml")), ids=lambda path: path.stem)
def test_amtool_accepts_the_configurations(path: Path) -> None:
    run(amtool, "check-config", path)


@pytest.mark.skipif(amtool is None, reason="amtool is not installed: `make tools`")
@pytest.mark.parametrize(
    ("configuration", "severity", "told"),
    [
        ("alertmanager", "critical", "nobody"),
        ("example", "critical", "on-call"),
        ("example", "warning", "chat"),
        ("example", "info", "chat"),
    ],
)
def test_alerts_are_routed_to_the_configured_receivers(configuration: str, severity: str, told: str) -> None:
    config = ALERTMANAGER / f"{configuration}.yml"
    assert run(amtool, "config", "routes", "test", f"--config.file={config}", f"severity={severity}").strip() == told


def test_alertmanager_notifies_nobody_by_default() -> None:
    shipped = yaml.safe_load((ALERTMANAGER / "alertmanager.yml").read_text())
    assert shipped["receivers"] == [{"name": shipped["route"]["receiver"]}]
    example = yaml.safe_load((ALERTMANAGER / "example.yml").read_text())
    for receiver in example["receivers"]:
        settings = [one for key, ways in receiver.items() if key.endswith("_configs") for one in ways]
        assert settings
        for one in settings:
            assert [key for key in one if key.endswith("_file")], "secrets come out of files"


def with_samples(page: str) -> Iterator[str]:
    """Yield the lines of a page, adding a sample for each labelled family that has none yet.

    promtool ignores families without samples.
    """
    lines = page.splitlines(keepends=True)
    for line, following in zip_longest(lines, lines[1:], fillvalue="# "):
        yield line
        if line.startswith("# TYPE ") and following.startswith("# "):
            _, _, name, kind = line.split()
            yield {"histogram": f"{name}_sum 0\n{name}_count 0\n"}.get(kind, f"{name} 0\n")


@needs_promtool
@pytest.mark.parametrize("component", metrics.COMPONENTS)
def test_promtool_accepts_the_metric_names(component: str) -> None:
    registry = metrics.registry_of(component)
    for page in (generate_latest(registry).decode(), generate_latest(WithOldNames(registry)).decode()):
        run(promtool, "check", "metrics", stdin="".join(with_samples(page)))
