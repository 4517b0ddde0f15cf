"""Mapping records to Port entities: one compiled JQ program for a list, compared with one JQ run for each property.

    python benchmarks/port_mapping.py [RECORDS]

Both map the same session records with the same default mapping, in the same process, and must give the same entities.
The second is what Port Ocean does (it distributes the runs over processes; here both use one).
"""

from __future__ import annotations

import sys
import time
from decimal import Decimal
from typing import Any

import jq

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.mapping import Mapper, default_text
from tallystream.agents.port_sink.mapping.entities import build, rules
from tallystream.agents.port_sink.mapping.program import Program, leaves

KIND = "session"
CHUNK = 200


def record(number: int) -> dict[str, Any]:
    """Return a generated session."""
    return {
        "connection_id": "codex-7f3a", "session_id": f"0199{number:032x}", "client": "codex", "provider": "openai",
        "started_at": "2026-11-21T13:00:00Z", "last_hour_at": "2026-11-21T16:00:00Z", "models": ["gpt-5-codex"],
        "openai_models": ["gpt-5-codex"],
        "attribution": {"user": "u_0123456789abcdef", "team": "platform", "repo": "acme/app", "branch": "main",
                        "env": "dev", "host": "h", "cost_center": None},
        "requests": number, "input_uncached": number * 1000, "cache_read": number * 3000, "cache_write_5m": 0,
        "cache_write_1h": 0, "output": number * 100, "reasoning": number, "tool": 0, "total_tokens": number * 4100,
        "unpriced_requests": 0, "late_events": 0, "cost": Decimal(number).scaleb(-6),
        "cost_usd": f"{Decimal(number).scaleb(-6):f}", "reported_cost": None, "reported_cost_usd": None,
    }  # fmt: skip


def compiled_over_a_list(mapper: Mapper, records: list[dict[str, Any]], known: Any) -> list[bytes]:
    """Map as the sink does."""
    found = []
    for start in range(0, len(records), CHUNK):
        mapped = mapper.run(KIND, [(one, {}) for one in records[start : start + CHUNK]], known)
        found += [entity.text for _, entity in mapped.entities]
    return found


def a_run_a_property(mapper: Mapper, records: list[dict[str, Any]], known: Any) -> list[bytes]:
    """Map in the usual way: each expression compiled once and run for each record."""
    (resource,) = (one for one in mapper.resources if one.kind == KIND)
    mapping = resource.port.entity.mappings
    assert not isinstance(mapping, list)
    programs = [(field.split("."), jq.compile(source)) for field, source in leaves(mapping)]
    select = jq.compile(resource.selector.query)
    found = []
    for one in records:
        plain = {name: float(value) if isinstance(value, Decimal) else value for name, value in one.items()}
        if select.input_value(plain).first() is not True:
            continue
        raw: dict[str, Any] = {}
        for (head, *rest), program in programs:
            value = program.input_value(plain).first()
            if rest:
                raw.setdefault(head, {})[rest[0]] = value
            else:
                raw[head] = value
        found.append(build(raw, one, known).text)
    return found


def rate(work: Any, mapper: Mapper, records: list[dict[str, Any]], known: Any) -> tuple[float, list[bytes]]:
    """Return records a CPU-second, and the entities."""
    began = time.process_time()
    found = work(mapper, records, known)
    return len(records) / (time.process_time() - began), found


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    mapper, known = Mapper(default_text()), rules(blueprints.load(session_hours=True))
    records = [record(number) for number in range(count)]
    resource = next(one for one in mapper.resources if one.kind == KIND)
    rate(compiled_over_a_list, mapper, records[:CHUNK], known)
    whole, entities = rate(compiled_over_a_list, mapper, records, known)
    sample = records[: max(CHUNK, count // 10)]
    single, others = rate(a_run_a_property, mapper, sample, known)
    assert [len(one) for one in entities[: len(sample)]] == [len(one) for one in others], "both map alike"
    print(f"{len(list(Program(resource).expressions()))} expressions a record, {count:,} records")
    print(f"compiled over a list   {whole:>10,.0f} records a CPU-second")
    print(f"a JQ run a property    {single:>10,.0f} records a CPU-second")
    print(f"                       {whole / single:>10.1f} times")


if __name__ == "__main__":
    main()
