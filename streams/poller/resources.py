"""Resources: what to ask OpenAI for, declared. The built-in ones are `resources.toml` beside this file.

A user's file (TOML or YAML, same shape) adds resources, replaces built-in ones of the same `name`, and leaves out those
it lists under `disable`.
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
"""Files of built-in resources: what OpenAI reports, and what bills are reconciled by."""


class Pages(BaseModel):
    """How one page leads to the next.

    `token`: `next` (JQ on the response) is sent as `param` until it is null, or until `more` is false.
    `offset`: the number of items so far is sent as `param` until a page has fewer than `size` items.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: Literal["token", "offset"] = "token"
    param: str = "page"
    next: str = ".next_page"
    more: str | None = ".has_more"
    size: int | None = Field(default=None, ge=1)
    """Items a page, sent as `size_param`; not part of the query's identity."""
    size_param: str = "limit"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.style == "offset" and self.size is None:
            raise ValueError("an offset needs a page size")
        return self


class Parents(BaseModel):
    """A list whose items each have a list of their own: the resource is asked once an item, and `{id}` in its path is
    the item's id.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/[^\s?#]*$")
    """Of the list of parents, which is paged as the resource is."""
    name: str
    """Under this name each row says which parent it is of."""


class Resource(BaseModel):
    """One endpoint. Durations are ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/[^\s?#]*$")
    """Below the base URL."""
    name: str = ""
    """What records and metrics call it; by default the path. Two queries of one path need two names."""
    key: KeyKind = "api"
    """The kind of key the endpoint needs."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Query parameters: a text is JQ (see `params`), a number, boolean or list is sent as it is."""
    data: str = ".data"
    """JQ on a response: the list of its items."""
    bucket: Literal["1m", "1h", "1d"] | None = None
    """Width of a bucket; without one the resource is a list of what is now, kept whole."""
    requests: Literal["window", "bucket"] = "window"
    """Ask once for the window, each item then says its bucket; or once a bucket, whose rows are then all items."""
    at: str = ".start_time"
    """JQ on an item: start of its bucket, as seconds since the epoch, a date or an RFC 3339 time."""
    rows: str = "[.]"
    """JQ on an item: its rows."""
    lookback: timedelta = timedelta(days=30)
    """How much history the first poll fetches."""
    restated_for: timedelta = timedelta(days=3)
    """How long after its end a bucket may still change."""
    chunk: timedelta = timedelta(days=30)
    """Longest window one query asks for."""
    pages: Pages | None = None
    parents: Parents | None = None
    """For a list of what is now: ask for it once for each item of another list."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if not self.name:
            object.__setattr__(self, "name", self.path)
        if not all(isinstance(value, str | int | float | list) for value in self.params.values()):
            raise ValueError("a parameter is a text (JQ), a number, a boolean or a list")
        if (self.parents is not None) != ("{id}" in self.path) or (self.parents and self.bucket):
            raise ValueError("`parents` and {id} in the path belong together, and to a resource without buckets")
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
        """What turns a response into buckets, compiled."""
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
        """The rule of its buckets; None when it has none."""
        if self.bucket is None:
            return None
        width = WIDTHS[self.bucket]
        chunk = width if self.requests == "bucket" else max(width, int(self.chunk.total_seconds()) // width * width)
        return BucketWindow(width, int(self.restated_for.total_seconds()), int(self.lookback.total_seconds()), chunk)

    def fixed_params(self) -> dict[str, Any]:
        """Return the parameters that do not move with time.

        Raises:
            PollError: an expression fails.

        """
        return self.compiled.fixed()

    def fingerprint(self, account: Iterable[str | None] = ()) -> str:
        """Return the query's identity: the resource, its fixed parameters, and whose usage it is (`account`).

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
    """Return the resources that come with the product: those of OpenAI's own reports, or of these files."""
    folder = files("tallystream.streams.poller")
    texts = [folder.joinpath(name).read_text() for name in names or BUILTIN[:1]]
    return tuple(found for text in texts for found in ResourceFile.model_validate(tomllib.loads(text)).resources)


def load(path: Path | None) -> tuple[Resource, ...]:
    """Return all resources to poll: the built-in ones with the changes of the user's file.

    Raises:
        UsageError: the file cannot be read, is not TOML or YAML, or declares something impossible.

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
        raise UsageError(f"{path} declares {min(twice)} twice", "give each a `name` of its own")
    if unknown := set(file.disable) - resources.keys():
        raise UsageError(f"{path} disables {min(unknown)}, which is not a built-in resource", ", ".join(resources))
    for name in file.disable:
        del resources[name]
    resources |= {resource.name: resource for resource in file.resources}
    return tuple(resources.values())


def select(resources: Sequence[Resource], names: Iterable[str]) -> tuple[Resource, ...]:
    """Return the resources of these names, all of them when there are none.

    Raises:
        UsageError: no resource has one of these names.

    """
    wanted = set(names)
    if unknown := wanted - {resource.name for resource in resources}:
        raise UsageError(
            f"there is no resource {min(unknown)}", "one of " + ", ".join(resource.name for resource in resources)
        )
    return tuple(resource for resource in resources if not wanted or resource.name in wanted)


def _json(value: Any) -> str:
    """Write values of JQ and TOML: floats there are what was written, not sums."""
    import json

    return json.dumps(value)
