"""Requests an endpoint of OpenAI once and finds the rows in its answer, for `tallystream openai explore`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tallystream.explore.draft import Draft, draft
from tallystream.explore.shapes import Shape
from tallystream.schemas.errors import UsageError
from tallystream.schemas.openai import bucket_name
from tallystream.streams.poller.client import OpenAIClient, OpenAIClientConfig
from tallystream.streams.poller.credentials import ApiKeys
from tallystream.streams.poller.extract import WHOLE, Expression, Row
from tallystream.streams.poller.params import Moment, Params, pairs
from tallystream.streams.poller.resources import BUILTIN, Resource, builtin

DAY = 86_400
WEEK = 7 * DAY
BUCKETED = ("results",)
"""Names of nested lists that contain the rows. Each row then gets the `start_time` of its bucket."""


@dataclass(frozen=True)
class Endpoint:
    """The request. `params` are JQ by name, as in a resource; `data` is JQ for the rows, None: find them."""

    path: str
    params: Mapping[str, Any]
    key: str
    data: str | None = None
    known: Resource | None = None
    """The built-in resource of the path, which defines where its rows are and the bucket of each."""


@dataclass(frozen=True)
class Explored:
    """The result. `answer` is exact JSON; `data` is the JQ that gives `rows`, as mappings see them."""

    endpoint: Endpoint
    answer: Any
    data: str
    rows: list[Row]
    answer_shape: Shape
    rows_shape: Shape
    draft: Draft

    @property
    def polled_already(self) -> bool:
        """Whether a built-in resource polls the endpoint."""
        return any(resource.name == self.endpoint.path for resource in builtin(*BUILTIN))


def endpoint(path: str, params: Mapping[str, str], key: str | None, data: str | None) -> Endpoint:
    """Return the request. For the path of a built-in resource, its parameters and key are the defaults.

    Raises:
        UsageError: the path does not begin with a slash.

    """
    if not path.startswith("/") or any(character in path for character in "?# "):
        raise UsageError(
            f"{path!r} is not a valid path below the base URL",
            "use the form /organization/costs, with parameters as --param",
        )
    known: Resource | None = next((resource for resource in builtin() if resource.path == path), None)
    merged = dict(known.params if known else {}) | dict(params)
    return Endpoint(path, merged, key or (known.key if known else "api"), data, None if data else known)


async def explore(
    config: OpenAIClientConfig, tokens: ApiKeys, asked: Endpoint, blueprint: str | None = None
) -> Explored:
    """Send the request and analyse the answer. `$from` and `$to` of parameters are the last seven days.

    Raises:
        UsageError: an expression does not compile, or no rows were found.
        PollError: OpenAI did not answer, or refused.

    """
    now = time.time()
    end = int(now) // DAY * DAY + DAY
    params = Params(asked.params).evaluate(Moment(now, end - WEEK, end))
    async with OpenAIClient(config, tokens) as client:
        answer = await client.get(asked.path, pairs(params), asked.key)
    data, rows, buckets = _rows(asked, answer)
    if not rows:
        raise UsageError(
            f"found no objects at {data} in this answer",
            "name the rows with --data, such as --data '[.data[].results[]]', or request a time that has data",
        )
    shape = Shape()
    for row in rows:
        shape.observe(row)
    selector = {
        "query": "true",
        "query_params": {name: value if isinstance(value, str) else _jq(value) for name, value in asked.params.items()},
    }
    if re.fullmatch(r"(\.\w+)+", data):
        selector["data_path"] = data
    drafted = draft(asked.path, rows, shape, selector=selector, identifier=blueprint, buckets=buckets)
    return Explored(asked, answer, data, rows, Shape().observe(answer), shape, drafted)


def _rows(asked: Endpoint, answer: object) -> tuple[str, list[Row], list[str] | None]:
    """Return the JQ of the rows, the rows, and the bucket of each if they are polled in buckets."""
    known = asked.known
    if known is not None:
        items = known.extractor.page(answer).items
        rows = [row for item in items for row in item.rows]
        if known.window is None:
            return known.data, rows, None
        data = known.data if known.rows == WHOLE else f"[{known.data}[] | {known.rows}[]]"
        width = known.window.width
        starts = [0 if item.at is None else item.at // width * width for item in items]
        named = [bucket_name(start, width) for start, item in zip(starts, items, strict=True) for _ in item.rows]
        return data, rows, named
    data = asked.data or find_rows(answer)
    found = Expression(data, "--data")(answer)
    rows = found if isinstance(found, list) and all(isinstance(row, dict) for row in found) else []
    return data, rows, None


def find_rows(answer: object) -> str:
    """Return the JQ of the list of objects nearest to the top, or of the `results` within its buckets."""
    if isinstance(answer, list):
        return "."
    if not isinstance(answer, dict):
        return "."
    for name, value in answer.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            inner = [key for key in value[0] if all(isinstance(item.get(key), list) for item in value)]
            rows = next((key for key in inner if any(item[key] for item in value)), None)
            if rows is None or rows not in BUCKETED:
                return f".{name}"
            return f"[.{name}[] | {{start_time}} + .{rows}[]]" if "start_time" in value[0] else f"[.{name}[].{rows}[]]"
    return ".data"


def files(explored: Explored) -> dict[str, str]:
    """Return the files to write, by name."""
    return {
        "blueprint.json": json.dumps(explored.draft.blueprint, indent=2) + "\n",
        "mapping.yaml": yaml.safe_dump(explored.draft.mapping, sort_keys=False, width=120, allow_unicode=True),
        "resources.toml": resource_toml(explored),
    }


def resource_toml(explored: Explored) -> str:
    """Return the resource file that makes the poller poll the endpoint."""
    asked = explored.endpoint
    if explored.polled_already:
        return f"# {asked.path} is built in: it is polled already, with windows and pages of its own.\n"
    lines = [
        "# Polled by tallystream once TALLYSTREAM_OPENAI_RESOURCES names this file.",
        "# Without `bucket` the current list is stored; docs/operations/openai.md explains windows and pages.",
        "[[resources]]",
        f"path = {json.dumps(asked.path)}",
        f"key = {json.dumps(asked.key)}",
        f"data = {json.dumps(explored.data)}",
    ]
    if asked.params:
        lines += ["", "[resources.params]"]
        lines += [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in asked.params.items()]
    return "\n".join(lines) + "\n"


def _jq(value: object) -> str:
    """Return a literal value as JQ."""
    return json.dumps(value)
