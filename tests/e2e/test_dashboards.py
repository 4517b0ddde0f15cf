"""Runs every panel's query on a real Prometheus that scrapes the whole product under load.

Each query must give a result, and those of Spend must equal the tokens and dollars of the fleet's truth.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.product import COMMAND, Product, product
from tests.support.prometheus import Prometheus, close, needs_prometheus, prometheus
from tests.support.stand_ins import urls_of
from tests.support.waiting import ANSWER, eventually

from tallystream.simulator import Truth
from tallystream.simulator.truth import FIELDS
from tallystream.streams.process.tcp_ports import pick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), needs_prometheus]
DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
KINDS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "tool")


def panels(board: str) -> dict[str, list[str]]:
    """Return the queries of a dashboard by panel."""
    document = json.loads((DASHBOARDS / f"{board}.json").read_text())
    return {
        str(panel["title"]): [str(target["expr"]) for target in panel["targets"]]
        for panel in document["panels"]
        if panel["type"] != "row"
    }


def filled(expr: str, span: str = "1h", **chosen: str) -> str:
    """Fill the variables in as Grafana does."""
    seconds = int(span[:-1]) * {"s": 1, "h": 3600}[span[-1]]
    expr = expr.replace("$__range_s", str(seconds)).replace("$__range", span).replace("$__rate_interval", "1m")
    for name in ("connection", "client", "model", "provider", "scope"):
        expr = expr.replace(f"${name}", chosen.get(name, ".*"))
    return expr


class Sums:
    """A truth, added up by the labels of a panel."""

    def __init__(self, truth: Truth) -> None:
        self.rows = [(key, dict(zip(FIELDS, sums, strict=True))) for key, sums in truth.acknowledged.items()]

    def total(self, field: str) -> int:
        return sum(sums[field] for _, sums in self.rows)

    def by(self, label: Callable[[Any], str], field: str) -> dict[str, float]:
        found: Counter[str] = Counter()
        for key, sums in self.rows:
            found[label(key)] += sums[field]
        return {name: value / 1e12 if field == "cost_pico" else float(value) for name, value in found.items()}


def model_of(key: Any) -> str:
    return str(key.model)


def team_of(key: Any) -> str:
    return str(dict(key.attribution).get("team", "none"))


def simulate(running: Product, folder: Path, name: str, *args: str) -> tuple[str, Sums, dict[str, Any]]:
    """Send a fleet's load over a new connection; return the connection's id, the truth, and its document."""
    document = running.json("connections", "create", "codex", "--name", name)
    connection, truth = folder / f"{name}.json", folder / f"{name}-truth.json"
    connection.write_text(json.dumps(document))
    argv = running.command("simulate", "--connection", str(connection), "--truth", str(truth), *args)
    done = subprocess.run(argv, env=running.environment, capture_output=True, text=True, timeout=COMMAND, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    running.cli("wait", "--caught-up", "--timeout", "180")
    return str(document["connection_id"]), Sums(Truth.load(truth)), document


def same(found: dict[str, float], wanted: dict[str, float]) -> bool:
    return found.keys() == wanted.keys() and all(close(found[name], value) for name, value in wanted.items())


def test_every_panel_has_data_and_spend_equals_the_truth(tmp_path: Path) -> None:
    with sandbox() as environment, product(tmp_path / "data", environment) as running:
        targets = {one["name"]: one["ops_url"].removeprefix("http://") for one in running.run_file()["components"]}
        with prometheus(tmp_path / "prometheus", targets) as asked:
            first, truth, document = simulate(
                running, tmp_path, "first", "--agents", "6", "--requests", "240", "--seed", "4", "--duplicates", "0.1",
            )  # fmt: skip
            shown = "sum(max by (connection, client, model) (tallystream_exporter_requests_total))"
            eventually(lambda: asked.value(shown) == truth.total("requests"), "Prometheus has all of it")
            spend_is(asked, truth, "1h", connection_of=first)
            chosen_model_is(asked, truth)
            # A range has whole seconds and may begin up to a second earlier, so the first fleet's data must be older.
            before = shown.replace("requests_total", "requests_total offset 2s")
            eventually(lambda: asked.value(before) == truth.total("requests"), "the first is over")
            moment = time.time()
            undecodable(document)
            second, more, _ = simulate(running, tmp_path, "second", "--agents", "3", "--requests", "90", "--seed", "5")
            both = truth.total("requests") + more.total("requests")
            eventually(lambda: asked.value(shown) == both, "Prometheus has the second, too")
            eventually(lambda: asked.value("tallystream:freshness:bad_ratio1h") is not None, "rules are evaluated")
            # A range that begins between the fleets must show only the second one, although the counters include both.
            span = f"{math.ceil(time.time() - moment)}s"
            spend_is(asked, more, span, connection_of=second, connections={first: 0.0}, ever=truth)
            eventually(partial(port_is_written, asked), "Port has everything, and OpenAI was polled")
            witnessed = "max(tallystream_ledger_coverage_witnessed_tokens)"
            eventually(lambda: asked.value(witnessed) is not None, "the ledger has compared what was witnessed")
            eventually(lambda: not silent(asked), lambda: "every panel has data, not:\n" + "\n".join(silent(asked)))
            pipeline_is(asked, running, both)
            assert asked.value("max(tallystream_poller_interval_seconds)") == 5
            for at in targets.values():
                pages_are_clean(at)
            if answers := os.environ.get("TALLYSTREAM_TEST_ANSWERS"):
                Path(answers).write_text(every_answer(asked))
            eventually(lambda: asked.by("up == 1", "component").keys() == targets.keys(), "all are scraped")


def silent(asked: Prometheus) -> list[str]:
    """Return the panels without data. A query that shows only problems may be empty, but not a whole panel."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for title, exprs in panels(path.stem).items():
            empty = [expr for expr in exprs if not asked.query(filled(expr))]
            if len(empty) == len(exprs) or not all(expr.endswith("> 0") for expr in empty):
                found.append(f"{path.stem}: {title}: {empty}")
    return found


def spend_is(
    asked: Prometheus, truth: Sums, span: str, *, connection_of: str, connections: dict[str, float] | None = None,
    ever: Sums | None = None,
) -> None:  # fmt: skip
    """Compare every panel of Spend with the truth of the data sent in the range."""
    spend = panels("spend")

    def value(title: str) -> float | None:
        return asked.value(filled(spend[title][0], span))

    def by(title: str, label: str, place: int = 0) -> dict[str, float]:
        # A series that did not change in the range is shown as 0.
        found = asked.by(filled(spend[title][place], span), label)
        return {name: amount for name, amount in found.items() if amount or ever is None}

    cost, tokens, requests = truth.total("cost_pico") / 1e12, truth.total("total_tokens"), truth.total("requests")
    unpriced = truth.total("unpriced_requests")
    assert close(value("Cost"), cost)
    assert value("Tokens") == tokens
    assert value("Requests") == requests
    assert value("Without a price") == unpriced
    assert value("Reasoning") == truth.total("reasoning")
    everything = cost + (ever.total("cost_pico") / 1e12 if ever is not None else 0)
    assert close(value("Total cost"), everything)
    assert close(value("Cost per request"), cost / (requests - unpriced))
    inputs = sum(truth.total(kind) for kind in KINDS[:4])
    assert close(value("Input from the cache"), truth.total("cache_read") / inputs)

    def present(wanted: dict[str, float]) -> dict[str, float]:
        return {name: amount for name, amount in wanted.items() if amount or ever is None}

    for title in ("Cost by model", "Models"):
        assert same(by(title, "model"), present(truth.by(model_of, "cost_pico"))), title
    assert same(by("Models", "model", 1), truth.by(model_of, "total_tokens"))
    assert same(by("Models", "model", 2), truth.by(model_of, "requests"))
    assert same(by("Models", "model", 3), present(truth.by(model_of, "unpriced_requests")))
    for title in ("Cost by team", "Teams"):
        assert same(by(title, "team"), present(truth.by(team_of, "cost_pico"))), title
    assert same(by("Teams", "team", 1), truth.by(team_of, "total_tokens"))
    assert same(by("Teams", "team", 2), truth.by(team_of, "requests"))
    assert same(
        asked.by(filled(spend["Cost by connection"][0], span), "connection"),
        {connection_of: cost} | (connections or {}),
    )
    kinds = {kind: float(truth.total(kind)) for kind in KINDS}
    assert same(asked.by(filled(spend["Tokens by kind"][0], span), "kind"), kinds)
    hours = asked.value(
        'max(tallystream_exporter_hour_cost_usd{hour="current"})'
        ' + max(tallystream_exporter_hour_cost_usd{hour="previous"})'
    )
    assert hours is not None
    assert hours <= everything + 1e-9
    assert close(
        value("This hour"), sum(asked.by("tallystream_exporter_connection_hour_cost_usd", "connection").values())
    )


def chosen_model_is(asked: Prometheus, truth: Sums) -> None:
    """Selecting a model shows only that model."""
    model, tokens = max(truth.by(model_of, "total_tokens").items(), key=lambda one: one[1])
    assert asked.value(filled(panels("spend")["Tokens"][0], model=model)) == tokens


def pipeline_is(asked: Prometheus, running: Product, requests: int) -> None:
    """Check Pipeline: nothing waits, nothing is lost, and the undecodable body is shown."""
    pipeline = panels("pipeline")
    for title in ("Freshness", "Not counted yet", "In spools", "Refused", "Down"):
        query = filled(pipeline[title][0])
        eventually(partial(is_zero, asked, query), f"{title} is 0")
    letters = Counter(one["reason"] for one in running.json("deadletters", "list")["deadletters"])
    assert letters == {"undecodable": 1}
    assert asked.by(filled(pipeline["Dead letters by reason"][0]), "reason").keys() == {"undecodable"}
    counted = "sum(tallystream_worker_usage_events_total)"
    eventually(lambda: asked.value(counted) == requests, lambda: f"{asked.value(counted)} of {requests} are counted")


def port_is_written(asked: Prometheus) -> bool:
    """Tell whether everything is in Port and every panel about it can have data."""
    polled = asked.value("max(tallystream_poller_last_success_timestamp_seconds)")
    entities = asked.value("sum(rate(tallystream_sink_entities_upserted_total[1m]))")
    behind = asked.value("max(tallystream_sink_behind_seconds)")
    return bool(polled) and bool(entities) and behind == 0


@contextlib.contextmanager
def sandbox() -> Iterator[dict[str, str]]:
    """Run the stand-ins for OpenAI and Port; give the settings that use them."""
    port = pick()
    argv = [sys.executable, "-m", "tallystream", "sandbox", "--port", str(port), "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        urls = urls_of(process)
        yield {
            "TALLYSTREAM_OPENAI_BASE_URL": urls["openai"],
            "TALLYSTREAM_OPENAI_API_TOKEN": "sk-sandbox",
            "TALLYSTREAM_OPENAI_INTERVAL": "PT5S",
            "TALLYSTREAM_PORT_BASE_URL": urls["port"],
            "TALLYSTREAM_PORT_CLIENT_ID": "sandbox",
            "TALLYSTREAM_PORT_CLIENT_SECRET": "sandbox",
        }
    finally:
        process.terminate()
        process.communicate(timeout=ANSWER)


def pages_are_clean(at: str) -> None:
    """Check a component's real metrics page with promtool."""
    with urllib.request.urlopen(f"http://{at}/metrics", timeout=ANSWER) as response:
        page = response.read()
    check = ["promtool", "check", "metrics"]
    done = subprocess.run(check, input=page, capture_output=True, timeout=ANSWER, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()


def every_answer(asked: Prometheus) -> str:
    """Return the results of each panel's queries, for people to read."""
    lines = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for title, exprs in panels(path.stem).items():
            for expr in exprs:
                found = asked.query(filled(expr))
                values = [f"{', '.join(one['metric'].values())} = {one['value'][1]}" for one in found]
                lines.append(f"{path.stem} | {title} | {len(found)} | {'; '.join(values[:6])}")
    return "\n".join(lines) + "\n"


def is_zero(asked: Prometheus, query: str) -> bool:
    return asked.value(query) == 0


def undecodable(document: dict[str, Any]) -> None:
    """Send a body that is not OTLP, which is answered 400 and becomes a dead letter."""
    request = urllib.request.Request(
        document["logs_url"], data=b"\xff\xff", headers={"Content-Type": "application/x-protobuf"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=ANSWER)
    with refused.value:
        assert refused.value.code == 400
