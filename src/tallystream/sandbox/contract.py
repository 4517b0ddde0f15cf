"""Validates requests, and our own answers, by an API's OpenAPI structure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

Document = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A violation of the contract, with its place and reason, for the developer of a client."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True)
class Parameter:
    """A declared query parameter."""

    name: str
    required: bool
    schema: Mapping[str, Any]
    judge: Any

    def read(self, values: Sequence[str]) -> Any:
        """Parse the texts according to the schema. Invalid ones stay texts, so that validation refuses them."""
        kind = self.schema.get("type")
        if kind == "array":
            item = self.schema.get("items", {}).get("type", "string")
            return [_read(value, item) for value in values]
        return _read(values[-1], kind)


class SpecOperation:
    """One method of one path."""

    def __init__(self, method: str, template: str, document: Document, raw: Document) -> None:
        self.method = method
        self.template = template
        self.id = f"{method} {template}"
        self.secured = bool(raw.get("security"))
        self.schemes = frozenset(name for entry in raw.get("security", ()) for name in entry)
        components = document.get("components", {})
        names = re.findall(r"{([^}]*)}", template)
        self._path = re.compile(re.sub(r"{[^}]*}", "([^/]+)", template))
        self._names = names
        parameters = [_resolve(document, one) for one in raw.get("parameters", ())]
        self._parameters = [
            Parameter(one["name"], one.get("required", False), one["schema"], _judge(one["schema"], components))
            for one in parameters
            if one["in"] == "query"
        ]
        self._path_judges = {
            one["name"]: _judge(one["schema"], components) for one in parameters if one["in"] == "path"
        }
        body = raw.get("requestBody", {})
        self._body_required = body.get("required", False)
        self._body = _content_judge(body, components)
        self._answers = {
            int(status): _content_judge(_resolve(document, answer), components)
            for status, answer in raw.get("responses", {}).items()
        }

    def match(self, raw_path: str) -> dict[str, str] | None:
        """Return the decoded parameters of the path, or None if the path does not match."""
        found = self._path.fullmatch(raw_path)
        return None if found is None else dict(zip(self._names, map(unquote, found.groups()), strict=True))

    def path_problems(self, values: Mapping[str, str]) -> list[Problem]:
        """Return what is wrong with the path's parameters."""
        return [
            problem for name, judge in self._path_judges.items() for problem in _problems(judge, values[name], name)
        ]

    def query(self, given: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], list[Problem]]:
        """Return the parameters with their defaults, and what is wrong with them. Undeclared ones are ignored."""
        values: dict[str, Any] = {}
        problems = []
        for parameter in self._parameters:
            # Both ways to repeat an array's name are in use: `group_by=a&group_by=b` and `group_by[]=a`.
            texts = given.get(parameter.name) or given.get(f"{parameter.name}[]")
            if not texts:
                if parameter.required:
                    problems.append(Problem(parameter.name, "is required"))
                if "default" in parameter.schema:
                    values[parameter.name] = parameter.schema["default"]
                continue
            value = parameter.read(texts)
            problems += _problems(parameter.judge, value, parameter.name)
            values[parameter.name] = value
        return values, problems

    def body_problems(self, body: object) -> list[Problem]:
        """Return the violations of a request's body; None means that the request has no body."""
        if body is None:
            return [Problem("body", "is required")] if self._body_required else []
        return [] if self._body is None else _problems(self._body, body, "body")

    def answer_problems(self, status: int, body: object) -> list[Problem]:
        """Return the violations of our answer. A status that the API does not declare is not checked."""
        judge = self._answers.get(status)
        return [] if judge is None else _problems(judge, body, f"answer {status}")


class Contract:
    """All operations of one API."""

    def __init__(self, *names: str) -> None:
        self.documents = [load(name) for name in names]
        self.operations = [
            SpecOperation(method.upper(), template, document, raw)
            for document in self.documents
            for template, item in document["paths"].items()
            for method, raw in item.items()
        ]
        # A template without parameters takes precedence over one with parameters that matches the same path.
        self.operations.sort(key=lambda operation: operation.template.count("{"))

    def find(self, method: str, raw_path: str) -> tuple[SpecOperation, dict[str, str]] | None:
        """Return the operation and the path's parameters."""
        for operation in self.operations:
            if operation.method == method and (values := operation.match(raw_path)) is not None:
                return operation, values
        return None

    def knows(self, raw_path: str) -> bool:
        """Return whether any method of the path is declared."""
        return any(operation.match(raw_path) is not None for operation in self.operations)


def load(name: str) -> Document:
    """Return a committed structure: `openai`, `openai-legacy` or `port`."""
    document: Document = json.loads(files("tallystream.sandbox").joinpath("spec", f"{name}.json").read_text())
    return document


def _judge(schema: Mapping[str, object], components: Mapping[str, object]) -> Any:
    whole = {**_plain(schema), "components": {"schemas": _plain(components.get("schemas", {}))}}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def _plain(schema: object) -> Any:
    """Return the JSON Schema of an OpenAPI schema: `nullable: true` allows null."""
    if isinstance(schema, dict):
        found = {key: _plain(item) for key, item in schema.items() if key != "nullable"}
        if schema.get("nullable") is True and isinstance(kind := schema.get("type"), str):
            found["type"] = [kind, "null"]
        return found
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def _content_judge(raw: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    schema = raw.get("content", {}).get("application/json", {}).get("schema")
    return None if schema is None else _judge(schema, components)


def _problems(judge: Any, value: Any, where: str) -> list[Problem]:
    return [
        Problem("/".join([where, *map(str, error.instance_path)]), error.message[:300])
        for error in judge.iter_errors(value)
    ]


def _resolve(document: Document, value: Document) -> Document:
    reference = value.get("$ref")
    if reference is None:
        return value
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    result: Document = found
    return result


def _read(text: str, kind: object) -> Any:
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind in ("integer", "number"):
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            return text
    return text
