"""Resources: declarations of what to poll. The built-in ones are in `resources.toml` beside this file.

A user's file (TOML or YAML, same format) adds resources, replaces built-in ones with the same `name`, and disables
those listed under `disable`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tallystream.schemas import exact
from tallystream.schemas.errors import UsageError
from tallystream.streams.poller.extract import Expression, Extractor
from tallystream.streams.poller.pages import Pages, Parents
from tallystream.streams.poller.params import Params
from tallystream.streams.poller.providers import KEY_HEADERS, Provider
from tallystream.streams.poller.schedule import BucketWindow

WIDTHS = {"1m": 60, "1h": 3600, "1d": 86_400}
_PLACE = re.compile(r"\{(\w*)\}")
KeyKind = Literal["api", "admin", "session", "anthropic"]
BUILTIN = ("resources.toml", "billing.toml")
"""Files of built-in resources: OpenAI's reports, and those needed to reconcile bills."""


class Resource(BaseModel):
    """One endpoint. Durations are ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/[^\s?#]*$")
    """Path below the base URL."""
    name: str = ""
    """Name in records and metrics; by default the path. Two queries of one path need different names."""
    key: KeyKind = "api"
    """The kind of API key that the endpoint needs."""
    provider: str | None = None
    """The provider of the file that is asked; by default OpenAI, or Anthropic if `key` says so."""
    method: Literal["GET", "POST"] = "GET"
    """POST is for queries that an API takes as a body; nothing is changed by a poll."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with each request; the key is not among them."""
    body: Any = None
    """JSON sent with POST, as it is."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Query parameters: a string is a JQ expression (see `params`); numbers, booleans and lists are sent unchanged."""
    data: str = ".data"
    """JQ expression on a response that gives the list of its items."""
    bucket: Literal["1m", "1h", "1d"] | None = None
    """Width of a bucket. Without it the resource is a list of current items, which is stored as a whole."""
    requests: Literal["window", "bucket"] = "window"
    """One request for the window, whose items name their bucket; or one request per bucket, whose rows are all
    items."""
    at: str = ".start_time"
    """JQ expression on an item that gives the start of its bucket, as seconds since the epoch, a date or an RFC 3339
    time."""
    rows: str = "[.]"
    """JQ expression on an item that gives its rows."""
    lookback: timedelta = timedelta(days=30)
    """How much history the first poll fetches."""
    restated_for: timedelta = timedelta(days=3)
    """How long after its end a bucket may still change."""
    chunk: timedelta = timedelta(days=30)
    """Maximum window of one query."""
    pages: Pages | None = None
    parents: Parents | None = None
    """For a list of current items: fetch it once for each item of another list."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if not self.name:
            object.__setattr__(self, "name", self.path)
        if not all(isinstance(value, str | int | float | list) for value in self.params.values()):
            raise ValueError("a parameter is a text (JQ), a number, a boolean or a list")
        places = set(_PLACE.findall(self.path))
        if places != ({self.parents.param} if self.parents else set()) or (self.parents and self.bucket):
            raise ValueError(
                "`parents` requires {id} in the path and a resource without buckets, and {id} requires `parents`"
            )
        if self.body is not None and self.method == "GET":
            raise ValueError("a body needs the method POST")
        if forbidden := {name for name in self.headers if name.lower() in KEY_HEADERS}:
            raise ValueError(f"the header {min(forbidden)} carries the key, which is a setting")
        try:
            _ = self.compiled, self.extractor, self.parent_list, self.parent_field, self.parent_filter
        except UsageError as exc:
            raise ValueError(exc.message) from None
        return self

    @property
    def asks_with(self) -> str:
        """The key that its requests carry: a kind of key, or a provider's name."""
        return self.provider or self.key

    @cached_property
    def compiled(self) -> Params:
        """The parameters, compiled."""
        return Params(self.params)

    @cached_property
    def extractor(self) -> Extractor:
        """The compiled extractor of buckets from a response."""
        pages = self.pages
        return Extractor(
            data=self.data,
            at=self.at if self.bucket and self.requests == "window" else None,
            rows=self.rows,
            next_page=pages.next_jq if pages else None,
            more=pages.more_jq if pages else None,
        )

    @cached_property
    def parent_list(self) -> Resource | None:
        """The list of parents, as a resource."""
        parents = self.parents
        if parents is None:
            return None
        return Resource(
            path=parents.path,
            key=self.key,
            provider=self.provider,
            data=parents.data or self.data,
            params=self.params if parents.params is None else parents.params,
            headers=self.headers,
            pages=self.pages,
        )

    @cached_property
    def parent_field(self) -> Expression | None:
        """What of a parent replaces the placeholder."""
        return Expression(self.parents.field, "parents.field") if self.parents else None

    @cached_property
    def parent_filter(self) -> Expression | None:
        """Which parents are asked for."""
        one = self.parents
        return Expression(one.filter, "parents.filter") if one is not None and one.filter is not None else None

    @cached_property
    def window(self) -> BucketWindow | None:
        """The schedule of its buckets; None without buckets."""
        if self.bucket is None:
            return None
        width = WIDTHS[self.bucket]
        chunk = width if self.requests == "bucket" else max(width, int(self.chunk.total_seconds()) // width * width)
        return BucketWindow(width, int(self.restated_for.total_seconds()), int(self.lookback.total_seconds()), chunk)

    def fixed_params(self) -> dict[str, Any]:
        """Return the parameters that do not depend on time.

        Raises:
            PollError: an expression fails.

        """
        return self.compiled.fixed()

    def fingerprint(self, account: Iterable[str | None] = ()) -> str:
        """Return the query's identity: the resource, its fixed parameters, and the account.

        Raises:
            PollError: an expression fails.

        """
        parts: list[Any] = [
            self.name,
            self.path,
            self.bucket or "",
            self.fixed_params(),
            [part or "" for part in account],
        ]
        if self.method != "GET" or self.headers or self.body is not None:
            parts.append([self.method, self.headers, self.body])
        if self.provider is not None:
            parts.append(self.provider)
        return sha256(exact.canonical(exact.loads(_json(parts))).encode()).hexdigest()[:16]


class ResourceFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    resources: list[Resource] = Field(default_factory=list)
    providers: list[Provider] = Field(default_factory=list)
    disable: list[str] = Field(default_factory=list)
    """Names of built-in resources not to poll."""


def builtin(*names: str) -> tuple[Resource, ...]:
    """Return the built-in resources: those of OpenAI's reports, or of the given files."""
    folder = files("tallystream.streams.poller")
    texts = [folder.joinpath(name).read_text() for name in names or BUILTIN[:1]]
    return tuple(found for text in texts for found in ResourceFile.model_validate(tomllib.loads(text)).resources)


@dataclass(frozen=True)
class Declared:
    """The resources to poll, and the providers of the user's own that some of them ask."""

    resources: tuple[Resource, ...]
    providers: tuple[Provider, ...] = ()


def load(*paths: Path) -> Declared:
    """Return all resources to poll: the built-in ones, changed by the user's files.

    Raises:
        UsageError: a file cannot be read, is not TOML or YAML, or has an invalid declaration.

    """
    resources = {resource.name: resource for resource in builtin(*BUILTIN)}
    ours = set(resources)
    names: set[str] = set()
    providers: dict[str, Provider] = {}
    for path in paths:
        file = _read(path)
        for provider in file.providers:
            if provider.name in providers:
                raise UsageError(f"the provider {provider.name} is declared twice, here in {path}", "declare it once")
            providers[provider.name] = provider
        for resource in file.resources:
            if resource.name in names:
                raise UsageError(f"{resource.name} is declared twice, here in {path}", "give each its own `name`")
            if resource.provider is not None and resource.name in ours:
                raise UsageError(
                    f"{path}: {resource.name} of {resource.provider} has the name of a built-in resource",
                    "give it a `name` of its own, such as /PROVIDER/PATH",
                )
            names.add(resource.name)
        if unknown := set(file.disable) - resources.keys():
            raise UsageError(f"{path} disables {min(unknown)}, which is not a built-in resource", ", ".join(resources))
        for name in file.disable:
            del resources[name]
        resources |= {resource.name: resource for resource in file.resources}
    for resource in resources.values():
        if resource.provider is not None and resource.provider not in providers:
            raise UsageError(
                f"{resource.name} asks {resource.provider}, which no file declares", "declare it under [[providers]]"
            )
    return Declared(tuple(resources.values()), tuple(providers.values()))


def _read(path: Path) -> ResourceFile:
    hint = "docs/operations/openai.md shows the shape; `tallystream openai explore` writes one"
    try:
        text = path.read_text()
        raw = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
        return ResourceFile.model_validate(raw or {})
    except OSError as exc:
        raise UsageError(f"the resource file {path} cannot be read: {exc.strerror}", hint) from exc
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        raise UsageError(f"{path}: {'.'.join(map(str, error['loc']))}: {error['msg']}", hint) from None
    except (ValueError, yaml.YAMLError) as exc:
        raise UsageError(f"{path} is not TOML or YAML: {' '.join(str(exc).split())}", hint) from exc


def select(resources: Sequence[Resource], names: Iterable[str]) -> tuple[Resource, ...]:
    """Return the resources with these names; without names, all.

    Raises:
        UsageError: a name is unknown.

    """
    wanted = set(names)
    if unknown := wanted - {resource.name for resource in resources}:
        raise UsageError(
            f"unknown resource {min(unknown)}", "one of " + ", ".join(resource.name for resource in resources)
        )
    return tuple(resource for resource in resources if not wanted or resource.name in wanted)


def _json(value: object) -> str:
    """Write JSON for values from JQ and TOML, whose floats are as written and not results of arithmetic."""
    import json

    return json.dumps(value)
