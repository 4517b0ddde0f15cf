"""The shape of a mapping file: Port's own, as its page on custom integrations has it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Selector(BaseModel):
    """Which records of a kind, and where a response keeps them."""

    model_config = ConfigDict(extra="allow")

    query: str = "true"
    """JQ on a record; only `true` takes it."""
    query_params: dict[str, Any] = Field(default_factory=dict)
    """JQ, evaluated at each poll; for the poller, shown by `tallystream port mapping test`."""
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


class Mappings(BaseModel):
    """One mapping or several for each record."""

    model_config = ConfigDict(extra="forbid")

    mappings: EntityMapping | list[EntityMapping]


class PortMapping(BaseModel):
    """`itemsToParse` is JQ for a list: each of its items makes entities of its own and is `.item` in them."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    entity: Mappings
    items_to_parse: str | None = None


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
