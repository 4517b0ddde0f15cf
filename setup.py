"""Builds the package; with TALLYSTREAM_COMPILE=1 the hot modules are compiled by mypyc.

pyproject.toml has everything else. The compiled modules are the same files, type-checked already: only what is on the
way of every small request and of every usage message is compiled. A loop over the contents of a body or over messages
stays interpreted (`schemas/otlp/logs.py`, `streams/gateway/ingest.py`, `agents/session_cost/agent.py`), because
compiled code does not let other threads run between its steps: a large body is decoded in a thread beside the event
loop, and messages are fetched in one beside the fold.
"""

import os

from setuptools import setup

COMPILED = (
    "agents/pricing/book.py",
    "agents/pricing/rates.py",
    "agents/session_cost/counted.py",
    "agents/session_cost/event_ids.py",
    "agents/session_cost/hour_state.py",
    "agents/session_cost/hours.py",
    "agents/session_cost/hours_of_rows.py",
    "agents/session_cost/known_sessions.py",
    "agents/session_cost/leb128.py",
    "agents/session_cost/ordinary.py",
    "agents/session_cost/parse.py",
    "agents/session_cost/plain_heads.py",
    "agents/session_cost/state_rows.py",
    "agents/session_cost/sums.py",
    "schemas/compiled.py",
    "schemas/keys.py",
    "schemas/packing.py",
    "schemas/clients/attribution.py",
    "schemas/clients/base.py",
    "schemas/clients/claude_code.py",
    "schemas/clients/cline.py",
    "schemas/clients/codex.py",
    "schemas/clients/gemini_cli.py",
    "schemas/clients/logs.py",
    "schemas/clients/payer.py",
    "schemas/clients/qwen_code.py",
    "schemas/clients/registry.py",
    "schemas/clients/unrecognised.py",
    "schemas/otlp/attributes.py",
    "schemas/otlp/limits.py",
    "schemas/otlp/protobuf_fields.py",
    "schemas/otlp/protobuf_records.py",
    "schemas/otlp/protobuf_scan.py",
    "schemas/otlp/records.py",
    "streams/gateway/acceptance.py",
    "streams/gateway/auth.py",
    "streams/gateway/budget.py",
    "streams/gateway/delivery/group_commit.py",
    "streams/gateway/destination.py",
    "streams/gateway/http/body.py",
    "streams/gateway/http/handler.py",
    "streams/gateway/message.py",
    "streams/gateway/quotas.py",
    "streams/gateway/routes.py",
    "streams/service/tallies.py",
)


def extensions() -> list[object]:
    """Return the extension modules; mypyc names each as Python imports it, so it is run in the package's folder."""
    from mypyc.build import mypycify

    paths = [f"src/tallystream/{path}" for path in COMPILED]
    found: list[object] = mypycify(
        ["--ignore-missing-imports", "--follow-imports=silent", *paths],
        opt_level=os.environ.get("TALLYSTREAM_COMPILE_LEVEL", "3"),
        debug_level="0",
    )
    return found


setup(ext_modules=extensions() if os.environ.get("TALLYSTREAM_COMPILE") == "1" else [])
