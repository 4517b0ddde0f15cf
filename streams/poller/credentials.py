"""The API keys by kind. They are read when needed, so that a mounted secret can be rotated, and never shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tallystream.streams.poller.errors import FailureReason, PollError

NEEDS = {
    "api": "set TALLYSTREAM_OPENAI_API_TOKEN to an API key of the organisation (sk-...)",
    "admin": (
        "/organization/* needs an admin key (sk-admin-...), which an organisation owner makes under Admin keys: set"
        " TALLYSTREAM_OPENAI_ADMIN_TOKEN"
    ),
    "session": (
        "/dashboard/billing/usage needs the session key of a signed-in browser (sess-...): set"
        " TALLYSTREAM_OPENAI_SESSION_TOKEN, or poll /organization/costs with an admin key instead"
    ),
    "anthropic": (
        "Anthropic's reports need an admin key (sk-ant-admin...) or an analytics key, made in the Console by an"
        " organisation admin: set TALLYSTREAM_ANTHROPIC_ADMIN_TOKEN"
    ),
}
"""Hint for a provider's refusal, by the kind of key that a resource needs."""
_KEY_LIKE = re.compile(r"\b(sk|sess)-[A-Za-z0-9_*.-]{3,}")
HIDDEN = "***"
OPENAI_KINDS = ("api", "admin", "session")
"""The kinds of keys that are OpenAI's; another one is a provider's."""


def needs(kind: str) -> str:
    """Return the hint for a refusal of a key of this kind."""
    return NEEDS.get(kind, f"check the file that `key_file` of the provider {kind} names")


@dataclass(frozen=True)
class ApiKey:
    """A configured key, or a file that contains one."""

    value: str | None = field(default=None, repr=False)
    file: Path | None = None

    def read(self) -> str | None:
        """Return the key, None when it is not set.

        Raises:
            PollError: the file cannot be read or does not contain a key.

        """
        if self.file is None:
            return self.value
        try:
            text = self.file.read_text().strip()
        except (OSError, ValueError) as exc:
            raise PollError(
                FailureReason.TOKEN,
                f"the key file {self.file} cannot be read: {type(exc).__name__}",
                "check that it is mounted",
            ) from None
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise PollError(
                FailureReason.TOKEN,
                f"the key file {self.file} does not contain exactly one key",
                "it must contain one line with the key",
            )
        return text


class ApiKeys:
    """The keys by kind; an OpenAI kind without its own key uses the API key."""

    def __init__(self, tokens: Mapping[str, ApiKey]) -> None:
        self._tokens = dict(tokens)
        self._seen: set[str] = set()

    @property
    def kinds(self) -> list[str]:
        """Return the kinds for which a key or a key file is set."""
        return sorted(self._tokens)

    def get(self, kind: str) -> str:
        """Return the key for resources of a kind.

        Raises:
            PollError: it is not set, or its file cannot be read.

        """
        # One provider's key is never sent to another one.
        for name in (kind, "api") if kind in OPENAI_KINDS else (kind,):
            value = self._tokens[name].read() if name in self._tokens else None
            if value:
                self._seen.add(value)
                return value
        provider = "OpenAI" if kind in OPENAI_KINDS else "Anthropic" if kind == "anthropic" else kind
        raise PollError(FailureReason.TOKEN, f"the API key for {provider} is not set", needs(kind))

    def scrub(self, text: str) -> str:
        """Return the text with every key that was ever used, and everything that looks like one, removed."""
        for value in self._seen:
            text = text.replace(value, HIDDEN)
        return _KEY_LIKE.sub(HIDDEN, text)
