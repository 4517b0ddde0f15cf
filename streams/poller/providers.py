"""Providers of a user's own in a resource file: base URL, how the key is sent, and the file that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tallystream.streams.poller.credentials import OPENAI_KINDS, ApiKey

KEY_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
"""Headers that hold secrets, which resource files must not."""


class Provider(BaseModel):
    """An API beside OpenAI's. Its resources name it as their `provider`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")
    base_url: str = Field(pattern=r"^https?://[^@/?#\s]+(/[^?#\s]*)?$")
    auth: Literal["bearer", "basic", "api_key", "none"] = "bearer"
    header: str = Field(default="X-API-Key", pattern=r"^[A-Za-z0-9-]+$")
    """The header that carries the key, with `api_key`."""
    username: str | None = None
    """With `basic`; the password is in the key file."""
    key_file: Path | None = None
    """File with the key, read at every poll."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request."""
    proxy_from_environment: bool = True
    """Whether HTTPS_PROXY and NO_PROXY apply."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.name in (*OPENAI_KINDS, "anthropic", "openai"):
            raise ValueError(f"the name {self.name} is taken by a built-in provider")
        if (self.key_file is None) != (self.auth == "none"):
            raise ValueError("`key_file` names the file with the key; without a key, `auth` is none")
        if (self.username is None) == (self.auth == "basic"):
            raise ValueError("`username` belongs to the auth `basic`")
        if forbidden := {name for name in self.headers if name.lower() in KEY_HEADERS}:
            raise ValueError(f"the header {min(forbidden)} carries a key, which belongs into `key_file`")
        return self

    @property
    def key(self) -> ApiKey:
        """Its key."""
        return ApiKey(file=self.key_file)
