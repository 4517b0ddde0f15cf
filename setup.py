"""Builds the package; with TALLYSTREAM_COMPILE=1 the hot modules are compiled, by mypyc and by Cython.

pyproject.toml has everything else. The compiled modules are the same files, type-checked already: only what is on the
way of every small request and of every usage message is compiled. What walks over the bytes of a body is compiled by
Cython, with the C types of the .pxd file beside the module: mypyc would make a Python integer of each position.

A loop over the contents of a body or over messages stays interpreted, or takes each step from an interpreted one
(`schemas/otlp/logs.py`, `streams/gateway/ingest.py`, `agents/session_cost/fold.py`), because compiled code does not
let other threads run between its steps: a large body is decoded in a thread beside the event loop, and messages are
fetched in one beside the fold. A walk takes a few milliseconds at most, because larger bodies are not walked.
"""

import os

from setuptools import Extension, setup

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
    "schemas/clients/request_ids.py",
    "schemas/clients/unrecognised.py",
    "schemas/otlp/attributes.py",
    "schemas/otlp/json_attributes.py",
    "schemas/otlp/json_logs.py",
    "schemas/otlp/json_records.py",
    "schemas/otlp/json_values.py",
    "schemas/otlp/limits.py",
    "schemas/otlp/protobuf_records.py",
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
WALKS = (
    "schemas/otlp/json_usual.py",
    "schemas/otlp/protobuf_fields.py",
    "schemas/otlp/protobuf_scan.py",
)
"""Walks over the bytes of a body. Every one has a .pxd file."""


def extensions() -> list[object]:
    """Return the extension modules; mypyc names each as Python imports it, so it is run in the package's folder."""
    from Cython.Build import cythonize
    from mypyc.build import mypycify

    level = os.environ.get("TALLYSTREAM_COMPILE_LEVEL", "3")
    walks = [
        Extension(
            f"tallystream.{path[:-3].replace('/', '.')}", [f"src/tallystream/{path}"], extra_compile_args=[f"-O{level}"]
        )
        for path in WALKS
    ]
    # the annotations are mypy's, the .pxd files have the types of C; a walk compares each position with the end itself
    directives = {"language_level": 3, "annotation_typing": False, "wraparound": False, "boundscheck": False}
    made: list[object] = cythonize(walks, build_dir="build", compiler_directives=directives, quiet=True)
    paths = [f"src/tallystream/{path}" for path in COMPILED]
    found: list[object] = mypycify(
        ["--ignore-missing-imports", "--follow-imports=silent", *paths], opt_level=level, debug_level="0"
    )
    return found + made


setup(ext_modules=extensions() if os.environ.get("TALLYSTREAM_COMPILE") == "1" else [])
