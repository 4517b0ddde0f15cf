"""Topic `accounts`: the operator's map of connections to the accounts that pay for them at a provider."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from tallystream.schemas import keys

BilledBy = Literal["openai", "anthropic"]
PROVIDERS: tuple[BilledBy, ...] = ("openai", "anthropic")
"""Providers whose bills are read."""


class AccountLink(BaseModel):
    """One connection pays through one key or project; key `connection_id|provider|project_id|api_key_id`.

    A connection may have several links and an account may have several connections: everything that is linked, directly
    or indirectly, is reconciled together. A tombstone removes a link.
    """

    model_config = ConfigDict(extra="forbid")

    connection_id: str = Field(min_length=1, max_length=256)
    provider: BilledBy
    billing: Literal["api", "plan"] = "api"
    """`plan`: a subscription pays, so its usage does not appear in any API bill."""
    project_id: str | None = Field(default=None, min_length=1, max_length=256)
    """OpenAI's project or Anthropic's workspace, when all of its keys are meant."""
    api_key_id: str | None = Field(default=None, min_length=1, max_length=256)
    """The provider's id of a key (`key_...`, `apikey_...`), never the key itself."""
    mapped_at: AwareDatetime

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        named = self.project_id is not None or self.api_key_id is not None
        if named != (self.billing == "api"):
            raise ValueError("a link names a project or a key, or says that a plan pays")
        return self

    @property
    def key(self) -> bytes:
        """The key of its message."""
        return keys.join(self.connection_id, self.provider, self.project_id or "", self.api_key_id or "")
