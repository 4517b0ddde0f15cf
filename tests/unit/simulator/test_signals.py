"""Simulated metrics and traces have the form of the real ones, and repeat usage that must not add anything."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest as BinaryMetrics
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as BinaryTraces
from opentelemetry.proto_json.collector.metrics.v1.metrics_service import ExportMetricsServiceRequest as JsonMetrics
from opentelemetry.proto_json.collector.trace.v1.trace_service import ExportTraceServiceRequest as JsonTraces
from tests.conftest import SHARED
from tests.support.oracle import JSON, value_of

from tallystream.schemas.otlp import Encoding
from tallystream.simulator import Fleet, FleetConfig
from tallystream.simulator.model import ClientName
from tallystream.streams.gateway.ingest import decode

START = 1_795_290_000_000_000_000
Shapes = dict[tuple[Any, ...], set[tuple[str, str]]]
"""Of each metric (scope, name, unit, kind, temporality) or span (scope, name, kind), the attributes and their kinds."""
each_client = pytest.mark.parametrize("client", get_args(ClientName))


def metrics(body: bytes, content_type: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    request: Any = JsonMetrics.from_dict(json.loads(body)) if content_type == JSON else BinaryMetrics.FromString(body)
    for group in request.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                for kind in ("sum", "histogram", "gauge"):
                    data = getattr(metric, kind)
                    for point in data.data_points if data is not None else ():
                        temporality = int(getattr(data, "aggregation_temporality", 0))
                        yield (scope.scope.name, metric.name, metric.unit, kind, temporality), point.attributes


def spans(body: bytes, content_type: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    request: Any = JsonTraces.from_dict(json.loads(body)) if content_type == JSON else BinaryTraces.FromString(body)
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                yield (
                    (scope.scope.name, span.name, int(span.kind), len(span.trace_id), len(span.span_id)),
                    span.attributes,
                )


READ = {"metrics": metrics, "traces": spans}


def shapes(found: Iterator[tuple[tuple[Any, ...], Any]], into: Shapes) -> Shapes:
    for key, attributes in found:
        into[key] |= {(pair.key, value_of(pair.value)[0]) for pair in attributes}
    return into


@each_client
@pytest.mark.parametrize("signal", ["metrics", "traces"])
def test_simulated_signals_occur_in_recordings(client: ClientName, signal: str) -> None:
    real: Shapes = defaultdict(set)
    for file in sorted((SHARED / "captures").glob(f"{client}-[bj]*/*.{signal}.*")):
        raw = file.read_bytes()
        body = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        shapes(READ[signal](body, JSON if file.suffix == ".json" else "application/x-protobuf"), real)
    if not real:
        pytest.skip("no recordings beside this checkout")
    ours: Shapes = defaultdict(set)
    config = FleetConfig(agents=8, requests=200, seed=7, start_ns=START, client=client, metrics=1, traces=1)
    for request in Fleet(config):
        if request.signal == signal:
            shapes(READ[signal](request.body, request.content_type), ours)
    assert len(ours) >= 2
    for key, attributes in ours.items():
        assert key in real
        assert attributes <= real[key], key


@each_client
def test_signals_tell_of_what_their_run_used(client: ClientName) -> None:
    """So a fleet whose logs all arrive has nothing missing, and one whose logs are lost has just that."""
    config = FleetConfig(agents=6, requests=300, seed=7, start_ns=START, client=client, metrics=1, traces=1)
    used: dict[str, int] = defaultdict(int)
    told: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for request in Fleet(config):
        for one in request.responses:
            used[one.session.session_id] += (
                one.input_uncached + one.cache_read + one.cache_write_5m + one.cache_write_1h + one.output + one.tool
            )
        encoding = Encoding.JSON if request.content_type == JSON else Encoding.PROTOBUF
        found = decode(request.body, encoding, request.signal)
        assert not found.left_out
        assert request.signal == "logs" or found.records == request.records
        for pack in found.witnesses:
            for said in pack.statements:
                told[said.source, pack.session_id][said.id] = said.input + said.output
    sums = {key: sum(statements.values()) for key, statements in told.items()}
    assert sum(tokens for (source, _), tokens in sums.items() if source == "metrics") == sum(used.values())
    by_session = {key for key in sums if key[1]}
    assert by_session
    assert all(sums[key] == used[key[1]] for key in by_session)


@each_client
def test_signals_have_time_and_session_of_their_run(client: ClientName) -> None:
    config = FleetConfig(agents=4, requests=100, seed=7, start_ns=START, client=client, metrics=1, traces=1)
    requests = list(Fleet(config))
    sessions = {r.session.session_id.encode() for q in requests for r in q.responses}
    named = [q for q in requests if q.signal != "logs" and any(session in q.body for session in sessions)]
    assert {q.signal for q in named} >= ({"traces"} if client == "codex" else {"traces", "metrics"})
    assert all(b"0c0de000" not in q.body for q in requests), "nothing is left of what is spliced"
    assert all(b"\x17" * 8 not in q.body and b"1663823975275763479" not in q.body for q in requests)
