"""Who pays for a request, as far as the client tells: a plan or the API's bill, and which account.

A subscription (ChatGPT, Google's Code Assist) does not bill requests one by one, so what we compute for its usage is
what the API would have charged. Nothing is guessed: a login to Claude may be a subscription or a Console account, and
Claude Code does not tell which, so only the operator can say it (docs/attribution.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from tallystream.schemas.otlp.records import Value

Billing = Literal["plan", "api"]
MODES: Final[Mapping[str, Billing]] = {
    "chatgpt": "plan",
    "chatgptauthtokens": "plan",
    "apikey": "api",
    "oauth-personal": "plan",
    "login_with_google": "plan",
    "cloud-shell": "plan",
    "qwen-oauth": "plan",
    "gemini-api-key": "api",
    "vertex-ai": "api",
    "openai": "api",
    "anthropic": "api",
}
"""Ways of logging in, in lower case: Codex's `auth_mode`, and `auth_type` of Gemini CLI and Qwen Code."""


class Payer(NamedTuple):
    """How a request is paid, and the hash of the account; None where the client does not tell."""

    billing: Billing | None = None
    account: str | None = None


NOBODY: Final = Payer()
_BILLED: Final[Mapping[Billing, Payer]] = {"plan": Payer("plan"), "api": Payer("api")}


def payer(mode: Value, *accounts: Value) -> Payer:
    """Return the payer for a way of logging in and the first account that is named."""
    billing = _billing(mode) if isinstance(mode, str) else None
    for value in accounts:
        if value is not None and (hashed := account_hash(value)) is not None:
            return Payer(billing, hashed)
    return NOBODY if billing is None else _BILLED[billing]


def _billing(mode: str) -> Billing | None:
    return MODES.get(mode) or MODES.get(mode.strip().lower())


@lru_cache(maxsize=4096)
def account_hash(value: Value) -> str | None:
    """Return `a_` and 16 hex digits for an account's or organisation's id, None when there is none.

    These ids are random, so the hash needs no key to keep them from being found by trying.
    """
    if not isinstance(value, str) or not (bare := value.strip()):
        return None
    return "a_" + blake2b(bare.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def billing_named(value: Value) -> Billing | None:
    """Return how an operator says that usage is paid; None for any other text."""
    bare = value.strip().lower() if isinstance(value, str) else ""
    return "plan" if bare == "plan" else "api" if bare == "api" else None
