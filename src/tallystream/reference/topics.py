"""Generates `asyncapi.yaml` and `docs/topics.md`, which document the topics for consumers, from the models.

Fields and rules come from the models, keys and versions from the catalogue, partitions and retention from the topic
specifications. A test compares the committed files with what is generated here.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tallystream import __version__
from tallystream.schemas import topic_names
from tallystream.schemas.catalogue import CATALOGUE, MessageSchema
from tallystream.streams.kafka.topics import DAY_MS, Topics, TopicSpec

DEFAULT_PREFIX = Topics().prefix
INTRODUCTION = """\
Every value is JSON, every key is text. The header `schema` names the kind and version of a value, such as
`session-hour-cost/1`. A version stays readable forever: fields are only added, and added fields are optional.

Parts of a key are joined by `|`; a `%` or `|` inside a part is written `%25` or `%7C`.
"""
READING = """\
## Reading rows correctly

`examples/cost_consumer.py` follows all of these rules in one file; a test runs it.

- **Rows are absolute.** A row contains the complete sums of its key so far, never a change to add. Keep one row a key.
- **The higher `version` wins**, compared as a list (`[generation, offset]`); of equal versions the later row. After a
  crash a row may be repeated, and a row with a lower version may follow one with a higher version: ignore it. Versions
  of different keys must not be compared.
- **A value of null is a tombstone**: the key was removed. Delete the row and its version.
- **`cost.hours` contains partial sums**: a key begins with a partition, and the hour's cost is the sum over all
  partitions. Each partial sum is absolute and has its own version. Its `agents` are parts of it: do not add them to it.
- **Money is an exact decimal string in dollars**; `null` means that no request has a price, which differs from `"0"`.
  Add with decimals, never with binary floating point. `unpriced_requests` counts the requests that a sum leaves out.
- **Rows do not say when they are final**: an hour is final one hour after it ended. Late events, which `late_events`
  counts, may still change a row after that, with a higher version.
- **Commit offsets after your own write is durable**, and start at the beginning of the topics: they are compacted and
  hold the newest row of every key.
"""


@dataclass(frozen=True)
class Channel:
    """A documented topic. `kinds` are the catalogue's names of its messages; `internal` topics are not a contract."""

    spec: TopicSpec
    name: str
    """The name without the prefix."""
    about: str
    kinds: tuple[MessageSchema, ...]
    internal: bool


ABOUT = {
    topic_names.USAGE: "Usage: the usage events of one session in one request. Tokens are counted from here."
    " Besides, corrections of prices (`tallystream reprice --apply`), which the header tells apart.",
    topic_names.CALLS: "Internal to workers: model calls as spans report them, before they are joined.",
    topic_names.SESSION_HOURS: "The cost of each session and hour, by model, tier and attribution.",
    topic_names.HOURS: "The cost of each hour by connection, model and team, as partial sums to add up.",
    topic_names.WITNESS: "What clients' metrics and spans say of usage that is counted from logs. Never a cost.",
    topic_names.SESSION_LINKS: "Which session started which: a subagent that has a session of its own, and its parent.",
    topic_names.CONNECTIONS: "Connections, which may send telemetry, with hashes of their secrets.",
    topic_names.ACTIVITY: "The last time that each connection sent each signal, by gateway.",
    topic_names.DEADLETTERS: "Records that could not be counted or delivered, each with its reason.",
    topic_names.OPENAI_RECORDS: (
        "What providers themselves report (OpenAI, Anthropic, your own): each message is one complete bucket of one"
        " query. The name dates from when OpenAI was the only one."
    ),
    topic_names.OPENAI_DAYS: "Cost and usage of a day as reported by OpenAI, by model and project.",
    topic_names.POLLER_CONTROL: "Internal to pollers: the position of each query. Its group elects the active poller.",
    topic_names.ACCOUNTS: "The provider accounts that pay for each connection, as mapped by the operator.",
    topic_names.RECONCILIATION_DAYS: "The difference between a provider's bill of a day and our estimate, by cause.",
    topic_names.PORT_SENT: "Internal to sinks: what was written to Port, so that nothing is written twice.",
    topic_names.CONSOLE_AUDIT: "Changes made in the console (connections, replays), and who made them.",
    topic_names.PORT_CONTROL: "Internal to sinks, and empty: its group elects the active sink.",
}
INTERNAL = {topic_names.CALLS, topic_names.POLLER_CONTROL, topic_names.PORT_SENT, topic_names.PORT_CONTROL}


def channels() -> list[Channel]:
    """Return every topic with its messages."""
    topics = Topics()
    found = []
    for spec in topics.all():
        name = spec.name.removeprefix(f"{topics.prefix}.")
        kinds = tuple(kind for kind in CATALOGUE.values() if kind.topic == name)
        if spec in (topics.session_hours_changelog, topics.calls_changelog):
            about = "The worker's own state. Its format may change with any release."
            table = spec.name.removeprefix(f"{topics.worker_app}-").replace("-changelog", " changelog")
            found.append(Channel(spec, table, about, (), True))
        else:
            found.append(Channel(spec, name, ABOUT[name], kinds, name in INTERNAL))
    return found


def docstring(model: type[BaseModel]) -> str:
    """Return a model's docstring, unwrapped."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").split())


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of a model's fields, including those of its base classes, from the source."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = " ".join(inspect.cleandoc(text.value.value).split())
    return found


def models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return a model and the models of its fields, by name."""
    found = {model.__name__: model}
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if part.__name__ not in found:
                found |= models(part)
    return found


def _parts(annotation: object) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _parts(inner)


def component_schemas(kind: MessageSchema) -> dict[str, Any]:
    """Return the JSON Schemas of a kind's model and its parts, which reference each other as AsyncAPI components."""
    whole = kind.model.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, Any] = whole.pop("$defs", {})
    parts[kind.model.__name__] = whole
    for name, model in models(kind.model).items():
        texts = field_docs(model)
        for field, schema in parts[name].get("properties", {}).items():
            if field in texts:
                schema["description"] = texts[field]
    return parts


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3 document. Its application is tallystream, which sends to each channel."""
    shown = [channel for channel in channels() if channel.kinds and not channel.internal]
    kinds = [kind for channel in shown for kind in channel.kinds]
    schemas: dict[str, Any] = {}
    for kind in kinds:
        schemas |= component_schemas(kind)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tallystream",
            "version": __version__,
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The cluster that TALLYSTREAM_KAFKA names.",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "host:port of a broker"}},
            }
        },
        "channels": {_id(channel.name): _channel(channel) for channel in shown},
        "operations": {
            f"send-{_id(channel.name)}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{_id(channel.name)}"},
                "summary": channel.about,
                "messages": [
                    {"$ref": f"#/channels/{_id(channel.name)}/messages/{kind.name}"} for kind in channel.kinds
                ],
            }
            for channel in shown
        },
        "components": {
            "messages": {kind.name: _message(kind) for kind in kinds},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _id(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name)


def _channel(channel: Channel) -> dict[str, Any]:
    config = channel.spec.config
    kept: dict[str, Any] = {"cleanup.policy": config.get("cleanup.policy", "delete").split(",")}
    if "retention.ms" in config:
        kept["retention.ms"] = int(config["retention.ms"])
    return {
        "address": f"{{prefix}}.{channel.name}",
        "description": channel.about,
        "parameters": {"prefix": {"default": DEFAULT_PREFIX, "description": "TALLYSTREAM_PREFIX of the deployment."}},
        "messages": {kind.name: {"$ref": f"#/components/messages/{kind.name}"} for kind in channel.kinds},
        "bindings": {
            "kafka": {
                "topic": channel.spec.name,
                "partitions": channel.spec.partitions,
                "topicConfiguration": kept,
                "bindingVersion": "0.5.0",
            }
        },
    }


def _message(kind: MessageSchema) -> dict[str, Any]:
    return {
        "name": kind.name,
        "title": kind.model.__name__,
        "summary": docstring(kind.model),
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {"schema": {"type": "string", "const": kind.header.decode()}},
            "required": ["schema"],
        },
        "payload": {"$ref": f"#/components/schemas/{kind.model.__name__}"},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": f"`{kind.key}`"}, "bindingVersion": "0.5.0"},
        },
    }


def asyncapi_yaml() -> str:
    """Return the text of the AsyncAPI file."""
    import yaml

    text: str = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=120)
    return "# Generated by `tallystream schemas --asyncapi asyncapi.yaml`; a test compares both.\n" + text


def markdown() -> str:
    """Return docs/topics.md."""
    public = [channel for channel in channels() if not channel.internal]
    lines = [
        "<!-- Generated by `tallystream schemas --topics docs/topics.md`; a test compares both. -->",
        "# Topics",
        "",
    ]
    lines += ["For machines: [asyncapi.yaml](../asyncapi.yaml), [schemas/json](../schemas/json).", ""]
    lines += [f"`{DEFAULT_PREFIX}` is the default of `TALLYSTREAM_PREFIX`. {INTRODUCTION}", READING]
    lines += ["## All topics", "", "| topic | content | key | kept | partitions |", "|---|---|---|---|---|"]
    for channel in channels():
        keys = "<br>".join(_code(kind.key) for kind in channel.kinds) or "-"
        kept = _kept(channel.spec)
        lines.append(f"| `{channel.spec.name}` | {channel.about} | {keys} | {kept} | {channel.spec.partitions} |")
    lines += [
        "",
        "`usage` and its rows have `TALLYSTREAM_PARTITIONS` partitions, which cannot be changed after creation.",
    ]
    for channel in public:
        lines += ["", f"## {channel.spec.name}", "", channel.about]
        described: set[str] = set()
        for kind in channel.kinds:
            lines += ["", f"Header `schema: {kind.header.decode()}`, key `{kind.key}`."]
            for name, model in models(kind.model).items():
                if name not in described:
                    described.add(name)
                    lines += ["", f"### {name}", "", docstring(model), "", *_table(model)]
    return "\n".join(lines) + "\n"


def _kept(spec: TopicSpec) -> str:
    policy = spec.config.get("cleanup.policy", "delete")
    days = f", {int(spec.config['retention.ms']) // DAY_MS} days" if "retention.ms" in spec.config else ""
    return policy.replace(",", " and ") + days


def _table(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    texts = field_docs(model)
    required = set(schema.get("required", ()))
    yield "| field | type | |"
    yield "|---|---|---|"
    for name, field in schema.get("properties", {}).items():
        optional = "" if name in required else "optional"
        about = ". ".join(part for part in (optional, _cell(texts.get(name, ""))) if part)
        yield f"| `{name}` | {_type(field)} | {about} |"


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _type(schema: dict[str, Any]) -> str:
    """Describe a JSON Schema's type: `list of CostBucket`, `string or null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[several]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "string" and "format" in schema:
        return str(schema["format"])
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(kind or "any")
