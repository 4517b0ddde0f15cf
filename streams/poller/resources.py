"""Resources: declarations of what to poll. The built-in ones are in `resources.toml` beside this file.

A user's file (TOML or YAML, same format) adds resources, replaces built-in ones with the same `name`, and disables
those listed under `disable`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
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
from tallystream.streams.poller.extract import Extractor
from tallystream.streams.poller.params import Params
from tallystream.streams.poller.schedule import BucketWindow

WIDTHS = {"1m": 60, "1h": 3600, "1d": 86_400}
KeyKind = Literal["api", "admin", "session", "anthropic"]
BUILTIN = ("resources.toml", "billing.toml")
"""Files of built-in resources: OpenAI's reports, and those needed to reconcile bills."""


class Pages(BaseModel):
    """Pagination of a resource.

    `token`: `next` (JQ on the response) is sent as `param` until it is null, or until `more` is false.
    `offset`: the number of items so far is sent as `param` until a page has fewer than `size` items.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: Literal["token", "offset"] = "token"
    param: str = "page"
    next: str = ".next_page"
    more: str | None = ".has_more"
    size: int | None = Field(default=None, ge=1)
    """Items per page, sent as `size_param`; not part of the query's identity."""
    size_param: str = "limit"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.style == "offset" and self.size is None:
            raise ValueError("an offset needs a page size")
        return self


class Parents(BaseModel):
    """A list of parents: the resource is fetched once for each item, whose id replaces `{id}` in the path."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/[^\s?#]*$")
    """Path of the list of parents, which is paginated like the resource."""
    name: str
    """Field in which each row names its parent."""


class Resource(BaseModel):
    """One endpoint. Durations are ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/[^\s?#]*$")
    """Path below the base URL."""
    name: str = ""
    """Name in records and metrics; by default the path. Two queries of one path need different names."""
    key: KeyKind = "api"
    """The kind of API key that the endpoint needs."""
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
        if (self.parents is not None) != ("{id}" in self.path) or (self.parents and self.bucket):
            raise ValueError(
                "`parents` requires {id} in the path and a resource without buckets, and {id} requires `parents`"
            )
        try:
            _ = self.compiled, self.extractor
        except UsageError as exc:
            raise ValueError(exc.message) from None
        return self

    @cached_property
    def compiled(self) -> Params:
        """The parameters, compiled."""
        return Params(self.params)

    @cached_property
    def extractor(self) -> Extractor:
        """The compiled extractor of buckets from a response."""
        pages = self.pages
        token = pages is not None and pages.style == "token"
        return Extractor(
            data=self.data,
            at=self.at if self.bucket and self.requests == "window" else None,
            rows=self.rows,
            next_page=pages.next if pages and token else None,
            more=pages.more if pages and token else None,
        )

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
        parts = [self.name, self.path, self.bucket or "", self.fixed_params(), [part or "" for part in account]]
        return sha256(exact.canonical(exact.loads(_json(parts))).encode()).hexdigest()[:16]


class ResourceFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    resources: list[Resource] = Field(default_factory=list)
    disable: list[str] = Field(default_factory=list)
    """Names of built-in resources not to poll."""


def builtin(*names: str) -> tuple[Resource, ...]:
    """Return the built-in resources: those of OpenAI's reports, or of the given files."""
    folder = files("tallystream.streams.poller")
    texts = [folder.joinpath(name).read_text() for name in names or BUILTIN[:1]]
    return tuple(found for text in texts for found in ResourceFile.model_validate(tomllib.loads(text)).resources)


def load(path: Path | None) -> tuple[Resource, ...]:
    """Return all resources to poll: the built-in ones, changed by the user's file.

    Raises:
        UsageError: the file cannot be read, is not TOML or YAML, or has an invalid declaration.

    """
    resources = {resource.name: resource for resource in builtin(*BUILTIN)}
    if path is None:
        return tuple(resources.values())
    hint = "docs/operations/openai.md shows the shape; `tallystream openai explore` writes one"
    try:
        text = path.read_text()
        raw = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
        file = ResourceFile.model_validate(raw or {})
    except OSError as exc:
        raise UsageError(f"the resource file {path} cannot be read: {exc.strerror}", hint) from exc
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        raise UsageError(f"{path}: {'.'.join(map(str, error['loc']))}: {error['msg']}", hint) from None
    except (ValueError, yaml.YAMLError) as exc:
        raise UsageError(f"{path} is not TOML or YAML: {' '.join(str(exc).split())}", hint) from exc
    names = [resource.name for resource in file.resources]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{path} declares {min(twice)} twice", "give each its own `name`")
    if unknown := set(file.disable) - resources.keys():
        raise UsageError(f"{path} disables {min(unknown)}, which is not a built-in resource", ", ".join(resources))
    for name in file.disable:
        del resources[name]
    resources |= {resource.name: resource for resource in file.resources}
    return tuple(resources.values())


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
