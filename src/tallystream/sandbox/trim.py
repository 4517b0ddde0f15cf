"""Derives the structure the sandbox validates against from the APIs' published OpenAPI documents.

    python -m tallystream.sandbox.trim OPENAI.json PORT.json [DIRECTORY]

Only structure is kept: names, types, limits, references. Prose, examples and operations that the sandbox does not serve
are left out, and repeated schemas are kept once. The files have no spaces, because people do not read or edit them. The
results, `openai.json` and `port.json`, are committed. Written by hand are `openai-legacy.json`, because those endpoints
are no longer documented, and `port-unpublished.json`, because Port's OpenAPI lacks them: the pages as port-labs/
port-skills (skills/port-dashboards/references/dashboards.md) and port-labs/terraform-provider-port-labs
(internal/cli/page.go) have them, the integration as port-labs/ocean calls it (port_ocean/clients/port/mixins/
integrations.py, port_ocean/clients/port/client.py).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

SPEC = Path(__file__).with_name("spec")
OPENAI_PATHS = ("/models", "/organization/")
PORT_PATHS = ("/v1/auth/access_token", "/v1/blueprints", "/v1/entities/search")
PORT_INTEGRATION = "/v1/integration/{identifier}"
"""Served without the operations below it."""
PROSE = frozenset({"description", "summary", "title", "example", "examples", "tags", "externalDocs", "x-oaiMeta"})
UNTRUE = frozenset({"discriminator"})
"""OpenAI's discriminators lack the mapping from values to schemas; by the book no answer of theirs fits them."""
MAPS = frozenset({"properties", "patternProperties", "schemas", "responses", "headers", "paths", "securitySchemes"})
"""Objects whose keys are names somebody chose, not words of the format."""
REPEATED = 600
"""Characters from which a repeated schema is worth a name."""


def trim(document: dict[str, Any], prefixes: tuple[str, ...], methods: frozenset[str]) -> dict[str, Any]:
    """Return the structure of the operations below `prefixes`."""
    paths = {
        path: {method: operation for method, operation in item.items() if method in methods}
        for path, item in document["paths"].items()
        if path.startswith(prefixes) or path == PORT_INTEGRATION
    }
    kept = {
        "openapi": document["openapi"],
        "info": {"title": "structure only", "version": document["info"]["version"]},
        "paths": {path: item for path, item in paths.items() if item},
        "components": document["components"],
    }
    return _named(_used(_bare(kept)))


def _bare(value: object, *, names: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            key: _once(item) if key == "required" and not names else _bare(item, names=key in MAPS and not names)
            for key, item in value.items()
            if names or not (key in PROSE or key in UNTRUE or key.startswith("x-"))
        } | ({"title": "structure only"} if value.get("title") == "structure only" else {})
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _once(value: object) -> Any:
    """Return `required` with each name once: Port's says `ok` twice, which no JSON Schema may."""
    return list(dict.fromkeys(value)) if isinstance(value, list) else value


def _used(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out the components that nothing refers to."""
    components = document["components"]
    wanted = _references(document["paths"])
    while True:
        more = wanted | {name for kind, key in wanted for name in _references(components.get(kind, {}).get(key, {}))}
        if more == wanted:
            break
        wanted = more
    document["components"] = {
        kind: {key: item for key, item in items.items() if kind == "securitySchemes" or (kind, key) in wanted}
        for kind, items in components.items()
    }
    return document


def _references(value: object) -> set[tuple[str, str]]:
    if isinstance(value, dict):
        found = {name for item in value.values() for name in _references(item)}
        reference = value.get("$ref")
        if isinstance(reference, str):
            kind, key = reference.split("/")[-2:]
            found.add((kind, key))
        return found
    return {name for item in value for name in _references(item)} if isinstance(value, list) else set()


def _named(document: dict[str, Any]) -> dict[str, Any]:
    """Give large schemas that repeat a name and refer to it."""
    counts: Counter[str] = Counter()

    def count(value: object, *, inside: bool) -> None:
        if isinstance(value, dict):
            # A schema's type is a text or a list; an object is a property that is called `type`.
            if inside and isinstance(value.get("type"), str | list) and len(text := _text(value)) >= REPEATED:
                counts[text] += 1
            for key, item in value.items():
                count(item, inside=inside or key == "schema")
        elif isinstance(value, list):
            for item in value:
                count(item, inside=inside)

    count(document["paths"], inside=False)
    repeated = sorted((text for text, times in counts.items() if times > 1), key=lambda text: (-len(text), text))
    names = {text: f"shared-{number}" for number, text in enumerate(repeated, 1)}

    def replace(value: object, *, top: bool = False) -> Any:
        if isinstance(value, dict):
            if not top and (name := names.get(_text(value))):
                return {"$ref": f"#/components/schemas/{name}"}
            return {key: replace(item) for key, item in value.items()}
        return [replace(item) for item in value] if isinstance(value, list) else value

    document["paths"] = replace(document["paths"])
    for text, name in names.items():
        document["components"]["schemas"][name] = replace(json.loads(text), top=True)
    return _used(document)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def render(document: dict[str, Any]) -> str:
    """Return the file's text."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"


def main(openai: str, port: str, directory: str = str(SPEC)) -> None:
    """Write both files."""
    target = Path(directory)
    document = json.loads(Path(openai).read_text())
    (target / "openai.json").write_text(render(trim(document, OPENAI_PATHS, frozenset({"get"}))))
    document = json.loads(Path(port).read_text())
    methods = frozenset({"get", "post", "put", "patch", "delete"})
    (target / "port.json").write_text(render(trim(document, PORT_PATHS, methods)))


if __name__ == "__main__":
    main(*sys.argv[1:])
