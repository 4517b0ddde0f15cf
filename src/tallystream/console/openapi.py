"""Generates the OpenAPI 3.1 document of the API from its operations and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tallystream import __version__
from tallystream.console import models

REF = "#/components/schemas/{model}"
_NAMES = str.maketrans({"/": "_", "{": None, "}": None})
PROBLEMS = {
    "400": "A parameter or the body is not valid.",
    "401": "Nobody is logged in.",
    "403": "The user may not do this, or the request does not come from a page of the console.",
    "404": "What was asked for does not exist.",
    "409": "The request conflicts with the existing state.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "421": "The Host is not one of this console's.",
    "503": "The ledger or Kafka does not answer.",
}


@dataclass(frozen=True)
class ApiOperation:
    """One operation. `params` describes the query, `path_params` the names in braces in the path."""

    method: str
    path: str
    summary: str
    answer: type[BaseModel] | None
    status: int = 200
    params: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    path_params: Mapping[str, str] | None = None
    table: bool = False
    """Whether its tables are also available as CSV."""
    problems: Sequence[str] = ("400", "401", "421", "503")


def document(operations: Sequence[ApiOperation]) -> dict[str, Any]:
    """Return the document."""
    used: dict[type[BaseModel], None] = {models.ErrorModel: None}
    for one in operations:
        used |= dict.fromkeys(model for model in (one.answer, one.body) if model is not None)
    _, schemas = models_json_schema([(model, "validation") for model in used], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tallystream",
            "version": __version__,
            "description": (
                "The console's data as JSON. Money is an exact decimal string in US dollars. Anyone who is logged in"
                " to the console may read it. A change also needs the header `X-CSRF-Token` of `/api/v1/me`."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"login": {"type": "apiKey", "in": "cookie", "name": "tallystream_<port>"}},
        },
        "security": [{"login": []}],
    }


def _operation(one: ApiOperation) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": text,
            "schema": dict(_NAME),
        }
        for name, text in (one.path_params or {}).items()
    ]
    if one.params is not None:
        schema = one.params.model_json_schema()
        required = schema.get("required", [])
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": _plain(rule)}
            for name, rule in schema["properties"].items()
            if one.table or name not in ("format", "table")
        ]
    content: dict[str, Any] = {}
    if one.answer is not None:
        content["application/json"] = {"schema": {"$ref": REF.format(model=one.answer.__name__)}}
    if one.table:
        content["text/csv"] = {"schema": {"type": "string"}}
    good: dict[str, Any] = {"description": one.summary}
    if content:
        good["content"] = content
    found: dict[str, Any] = {
        "operationId": one.method.lower() + one.path.removeprefix("/api/v1").translate(_NAMES),
        "summary": one.summary,
        "responses": {str(one.status): good}
        | {
            code: {
                "description": PROBLEMS[code],
                "content": {"application/json": {"schema": {"$ref": REF.format(model="ErrorModel")}}},
            }
            for code in one.problems
        },
    }
    if parameters:
        found["parameters"] = parameters
    if one.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF.format(model=one.body.__name__)}}},
        }
    return found


_NAME = {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9-]+$"}


def _plain(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without null, which a query cannot express."""
    if "anyOf" in rule:
        (only,) = [dict(one) for one in rule["anyOf"] if one.get("type") != "null"]
        return only
    return {name: value for name, value in rule.items() if name != "title"}
