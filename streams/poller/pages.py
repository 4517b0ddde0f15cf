"""How a resource's answer continues on further pages, and the list of parents whose items it is asked for."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Pages(BaseModel):
    """Pagination of a resource.

    `token`: `next` (JQ on the answer) is sent as `param` until it is null, or until `more` is false.
    `offset`: the number of items so far is sent as `param` until a page has fewer than `size` items.
    `page`: `first`, `first` + 1, ... is sent as `param` until a page has fewer than `size` items, or none.
    `link`: the next page is at the URL that the `Link` header calls `next`, or that `next` (JQ on the answer) gives.

    With `offset` and `page`, `more` (JQ on the answer) decides instead if it is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: Literal["token", "offset", "page", "link"] = "token"
    param: str = "page"
    next: str = ".next_page"
    more: str | None = ".has_more"
    first: int = 1
    """Number of the first page."""
    size: int | None = Field(default=None, ge=1)
    """Items per page, sent as `size_param`; not part of the query's identity."""
    size_param: str = "limit"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.style == "offset" and self.size is None:
            raise ValueError("an offset needs a page size")
        return self

    @property
    def next_jq(self) -> str | None:
        """JQ on an answer that names the next page; None: the answer's body does not."""
        if self.style == "token":
            return self.next
        return self.next if self.style == "link" and "next" in self.model_fields_set else None

    @property
    def more_jq(self) -> str | None:
        """JQ on an answer that tells whether there is another page; None: it is told by other means."""
        if self.style == "token":
            return self.more
        return self.more if self.style != "link" and "more" in self.model_fields_set else None


class Parents(BaseModel):
    """A list of parents: the resource is fetched once for each item, which replaces `{param}` in the path."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/[^\s?#{}]*$")
    """Path of the list of parents, which is paginated like the resource."""
    name: str
    """Field in which each row names its parent."""
    param: str = Field(default="id", pattern=r"^\w+$")
    """Name of the placeholder in the path."""
    field: str = ".id"
    """JQ on a parent that gives what replaces it; a parent without it is left out."""
    filter: str | None = None
    """JQ on a parent; only those for which it is true are asked for."""
    data: str | None = None
    """JQ on the parents' answer that gives the list; by default that of the resource."""
    params: dict[str, Any] | None = None
    """Query parameters of the parents' list; by default those of the resource."""
