"""The shape of a mapping file: Port's own, as its page on custom integrations has it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel


class PathParameter(BaseModel):
    """Where the values of a placeholder in an endpoint's path come from: the items of another endpoint."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    method: str = "GET"
    query_params: dict[str, Any] | None = None
    headers: dict[str, str] | None = None
    data_path: str | None = None
    field: str
    """JQ on an item."""
    filter: str | None = None
    """JQ on an item; only `true` takes it."""


class Selector(BaseModel):
    """Which records of a kind, and how its endpoint is asked. `polled` makes a resource of the latter."""

    model_config = ConfigDict(extra="allow")

    query: str = "true"
    """JQ on a record; only `true` takes it."""
    endpoint: str | None = None
    """Path below the base URL; by default the kind."""
    method: str = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None
    path_parameters: dict[str, PathParameter] = Field(default_factory=dict)
    query_params: dict[str, Any] = Field(default_factory=dict)
    """JQ, evaluated at each poll, or literal texts; shown by `tallystream port mapping test`."""
    pagination: str | dict[str, Any] | None = None
    data_path: str | None = None
    """JQ on a response: its records. The poller's resources have their own; used for samples."""


class EntityMapping(BaseModel):
    """One entity: every value is JQ; objects and lists may hold JQ at any depth."""

    model_config = ConfigDict(extra="forbid")

    identifier: str
    blueprint: str
    title: str | None = None
    icon: str | None = None
    team: Any = None
    properties: dict[str, Any] = Field(default_factory=dict)
    relations: dict[str, Any] = Field(default_factory=dict)

    @field_validator("identifier", mode="before")
    @classmethod
    def _no_search(cls, given: object) -> object:
        if isinstance(given, dict):
            raise ValueError(  # noqa: TRY004 - pydantic's validators raise ValueError
                "a search for the entity (combinator, rules) is not supported: write JQ that gives its identifier, or"
                " make the searched property a relation"
            )
        return given


class Mappings(BaseModel):
    """One mapping or several for each record."""

    model_config = ConfigDict(extra="forbid")

    mappings: EntityMapping | list[EntityMapping]


class PortMapping(BaseModel):
    """`itemsToParse` is JQ for a list: each of its items makes entities of its own and is `.item` in them."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    entity: Mappings
    items_to_parse: str | None = None
    items_to_parse_name: str = Field(default="item", pattern=r"^[A-Za-z_]\w*$")
    """The item's name in expressions, instead of `.item`."""
    items_to_parse_top_level_transform: bool = True
    """Whether Port leaves the list itself out of the record, which saves it memory. Here the list is always there."""


class ResourceMapping(BaseModel):
    """The mapping of the records of a kind."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(min_length=1)
    selector: Selector = Field(default_factory=Selector)
    port: PortMapping


class MappingFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    resources: list[ResourceMapping] = Field(min_length=1)
    create_missing_related_entities: bool = False
    """Let Port make bare entities for relations whose target does not exist, instead of waiting for it."""
    enable_merge_entity: bool = True
    """Leave properties that the mapping does not name as they are in Port."""
    delete_dependent_entities: bool = False
    """When the retention rule deletes an entity, delete those that relate to it too."""
    entity_deletion_threshold: float | None = None
    """Accepted, without effect: entities that are missing from an answer are never deleted."""
