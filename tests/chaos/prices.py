"""Prices that are corrected (`tallystream reprice --apply`) while the workers and the command itself are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.faults import Blow, Ring, kill_worker, kind
from tests.chaos.parts import ROOT
from tests.support.waiting import eventually

from tallystream.agents.pricing import Book, read_overlay

MODELS = ("o3", "gpt-5-codex", "gpt-5.1-codex", "gpt-6.1-sol", "gpt-5.4")
INPUT, CACHED, OUTPUT = Decimal("7.013"), Decimal("0.517"), Decimal("61.09")
"""Dollars a million tokens that no price book has; the same for every model, and whatever the size of a request."""
CORRECTED = "\n".join(
    f'[[price]]\nprovider = "openai"\nmodel = "{model}"\ninput = "{INPUT}"\ncache_read = "{CACHED}"\n'
    f'output = "{OUTPUT}"\n'
    for model in MODELS
)
_COUNTER = "tallystream_worker_price_corrections_total"


def corrected(folder: Path) -> tuple[Path, str]:
    """Write these prices; return their file, and the hash of the book that they make."""
    path = folder / "corrected.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CORRECTED)
    return path, Book(read_overlay(path)).hash


def costs_law(buckets: Iterable[Mapping[str, Any]], book: str) -> list[str]:
    """Return what is wrong with requests of that book: their cost must be exactly what their own tokens cost, however
    they came to it. Nothing of the fold and of the product's prices is used.
    """
    wrong = []
    for one in buckets:
        if one["book"] != book or one["model"] not in MODELS or not one["requests"]:
            continue
        plain = sum(one[name] for name in ("input_uncached", "cache_write_5m", "cache_write_1h", "tool"))
        cost = (plain * INPUT + one["cache_read"] * CACHED + one["output"] * OUTPUT).scaleb(-6)
        if Decimal(one["cost_usd"] or 0) != cost:
            wrong.append(
                f"costs: {one['requests']} requests of {one['model']} cost {one['cost_usd']}, their tokens cost {cost}"
            )
    return wrong


@kind("reprice")
def reprice(ring: Ring) -> Blow:
    """Give counted requests other prices and then their own again; kill a worker and the command during both."""
    cluster = ring.cluster
    path, book = corrected(cluster.folder)
    own = cluster.folder / "own.toml"
    own.write_text("")
    unacked = found = 0
    for prices in (path, own):
        victim = ring.victim()
        with _command(cluster, prices) as command:
            before = _applied(cluster)
            eventually(
                lambda command=command, before=before: _applied(cluster) > before or command.poll() is not None,  # type: ignore[misc]
                "corrections are applied", 180,
            )  # fmt: skip
            unacked += kill_worker(ring, victim)
            command.kill()
        cluster.settled()
        # New usage has the workers' own prices. While it arrives, other prices are never complete: exit code 4.
        codes = (0, 4) if prices is path else (0,)
        with _command(cluster, prices) as command:
            out, err = command.communicate(timeout=400)
        assert command.returncode in codes, f"{command.returncode}\n{out[-2000:]}\n{err[-2000:]}"
        if prices is path:
            rows = cluster.rows()
            found = sum(row["requests"] for row in rows if row["book"] == book)
            ring.wrong += costs_law(rows, book)
            if not found:
                ring.wrong.append("costs: no request had the other prices, so that nothing is proven")
    return Blow("reprice", 4, unacked, "messages", f"{found:,} requests were corrected, and back")


def _command(cluster: Cluster, prices: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tallystream", "reprice", "--prices", str(prices), "--apply", "--yes"]
    argv += ["--timeout", "240", "--kafka", cluster.addresses, "--data-dir", str(cluster.data("reprice"))]
    return subprocess.Popen(
        argv, cwd=ROOT, env=cluster.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _applied(cluster: Cluster) -> float:
    return sum(worker.metric(_COUNTER) for worker in cluster.workers if worker.alive)
