"""Recorded client runs: their request bodies in order, and what the model API served."""

from __future__ import annotations

import json
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tests.support.waiting import ANSWER

from tallystream.schemas.hours import HOUR_NS, hour_iso

KEPT_HEADERS = ("content-type", "content-encoding")
Totals = dict[str, int]


@dataclass(frozen=True)
class Body:
    """One recorded request."""

    signal: str
    headers: dict[str, str]
    data: bytes
    grpc: bool = False
    """Whether the client sent it by gRPC."""


class Capture:
    """One folder of `captures`."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        self.truth: dict[str, Any] = json.loads((folder / "truth.json").read_text())
        self.client = folder.name.partition("-")[0]

    def bodies(self) -> list[Body]:
        """Return every request in order of arrival, refused ones too."""
        found = []
        for path in sorted(self.folder.glob("[0-9]*.*.*")):
            number, signal, _ = path.name.split(".")
            if signal == "headers":
                continue
            request = json.loads((self.folder / f"{number}.headers.json").read_text())
            recorded = request["headers"]
            headers = {name: value for name, value in recorded if name.lower() in KEPT_HEADERS}
            by_grpc = request.get("transport") == "grpc" or any(
                name.lower() == "content-type" and "grpc" in value for name, value in recorded
            )
            # a gRPC call contains the same message as a protobuf request
            if not any(name.lower() == "content-type" and "grpc" not in value for name, value in headers.items()):
                headers["content-type"] = "application/x-protobuf"
            found.append(Body(signal, headers, path.read_bytes(), by_grpc))
        return found

    def expected(self) -> dict[tuple[str, str], Totals]:
        """Return counts by (session, model), in our names."""
        counts = _COUNTS[self.client]
        return {(t["session_id"], t["model"]): counts(t["totals"]) for t in self.truth["totals"]}

    def expected_hours(self) -> dict[tuple[str, str, str], int]:
        """Return requests by (session, hour, model), by the times at which the model API answered."""
        hours: dict[tuple[str, str, str], int] = defaultdict(int)
        for served in self.truth["responses"]:
            if not served.get("usage_served") or served["kind"] == "warmup":
                continue
            session = served["turn_metadata"].get("thread_id") or served["conversation_header"]
            hours[session, hour_iso(int(served["t"] * 10**9) // HOUR_NS), served["model"]] += 1
        return dict(hours)


def codex_counts(served: dict[str, int]) -> Totals:
    """Turn OpenAI's counts (input includes cached tokens and cache writes) into disjoint ones."""
    cached, written = served["cached"], served.get("cache_write", 0)
    return {
        "requests": served["responses"],
        "input_uncached": served["input"] - cached - written,
        "cache_read": cached,
        "cache_write": written,
        "output": served["output"],
        "reasoning": served["reasoning"],
        "tool": 0,
    }


def claude_counts(served: dict[str, int]) -> Totals:
    """Rename Anthropic's counts, which are disjoint; it does not say how long a cache write lives."""
    return {
        "requests": served["responses"],
        "input_uncached": served["input"],
        "cache_read": served["cache_read"],
        "cache_write": served["cache_creation"],
        "output": served["output"],
        "reasoning": 0,
        "tool": 0,
    }


def gemini_counts(served: dict[str, int]) -> Totals:
    """Turn Google's counts (input includes cached tokens, output excludes thoughts) into disjoint ones."""
    return {
        "requests": served["responses"],
        "input_uncached": served["input"] - served["cached"],
        "cache_read": served["cached"],
        "cache_write": 0,
        "output": served["output"] + served["thoughts"],
        "reasoning": served["thoughts"],
        "tool": served["tool"],
    }


_COUNTS: dict[str, Callable[[dict[str, int]], Totals]] = {
    "codex": codex_counts,
    "claude": claude_counts,
    "gemini": gemini_counts,
}


def export(address: str, metadata: tuple[tuple[str, str], ...], body: Body) -> None:
    """Send a recorded message by gRPC; raises when it is refused."""
    service = {"logs": "logs.v1.LogsService", "metrics": "metrics.v1.MetricsService", "traces": "trace.v1.TraceService"}
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/opentelemetry.proto.collector.{service[body.signal]}/Export")
        call(body.data, metadata=metadata, timeout=ANSWER)


def post(url: str, body: Body) -> int:
    """Send a recorded body and return the status."""
    request = urllib.request.Request(url, data=body.data, headers=body.headers, method="POST")
    with urllib.request.urlopen(request, timeout=ANSWER) as response:
        status: int = response.status
        return status
