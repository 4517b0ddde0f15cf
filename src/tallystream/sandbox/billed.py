"""Configured bills: the answers of both providers, day by day, as set by a test or a demo.

    {
      "openai": {
        "costs": [{"day": "2026-11-21", "project_id": "proj_a", "api_key_id": "key_a",
                   "line_item": "gpt-5.6-sol, input", "value": "45.00",
                   "currency": "usd", "quantity": 10000000, "quantity_unit": "tokens"}],
        "usage": [{"hour": "2026-11-21T09:00:00Z", "project_id": "proj_a", "api_key_id": "key_a",
                   "model": "gpt-5.6-sol", "batch": false, "service_tier": "default", "input_tokens": 10,
                   "output_tokens": 1}],
        "keys": {"proj_a": ["key_a"]}
      },
      "anthropic": {
        "costs": [{"hour": "2026-11-21T09:00:00Z", "api_key_id": "apikey_a", "workspace_id": "wrkspc_a",
                   "model": "claude-opus-5-5", "token_type": "output_tokens", "cents": "950.000000",
                   "list_cents": "1000.000000"}],
        "usage": [{"hour": "2026-11-21T09:00:00Z", "api_key_id": "apikey_a", "workspace_id": "wrkspc_a",
                   "model": "claude-opus-5-5", "output_tokens": 400000}],
        "refreshed_at": "2026-11-24T12:00:00Z"
      }
    }

Posting another bill to `/sandbox/bill` is a restatement. A `value` is sent as given: a string as a string, with its
zeros and exponents, and a number as a number.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tallystream.schemas import exact
from tallystream.schemas.billing.amounts import read_amount
from tallystream.schemas.openai import Day
from tallystream.schemas.rows import Hour

Count = Annotated[int, Field(ge=0)]


def _as_given(value: object) -> Any:
    if value is not None:
        read_amount(value)
    return value


Value = Annotated[Any, BeforeValidator(_as_given)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OpenAICost(_Strict):
    """One amount of a day."""

    day: Day
    project_id: str | None = None
    api_key_id: str | None = None
    line_item: str
    value: Value
    currency: str = "usd"
    quantity: Value = None
    quantity_unit: str | None = None
    user_email: str | None = None
    """An undocumented field that live answers contain."""


class OpenAIUse(_Strict):
    """Completions of an hour."""

    hour: Hour
    project_id: str | None = None
    api_key_id: str | None = None
    model: str
    batch: bool = False
    service_tier: str | None = "default"
    input_tokens: Count = 0
    """Cached tokens and cache writes included."""
    input_cached_tokens: Count = 0
    input_cache_write_tokens: Count = 0
    output_tokens: Count = 0
    num_model_requests: Count = 1


class OpenAIBill(_Strict):
    """OpenAI's answers."""

    costs: list[OpenAICost] = []
    usage: list[OpenAIUse] = []
    keys: dict[str, list[str]] = {}
    """Keys by project."""


class _Group(_Strict):
    hour: Hour
    api_key_id: str | None = None
    workspace_id: str | None = None
    model: str | None = None
    service_tier: str | None = "standard"
    context_window: str | None = "0-200k"


class AnthropicCost(_Group):
    """One amount of an hour, in cents."""

    cost_type: str = "tokens"
    token_type: str | None = None
    cents: str
    list_cents: str | None = None
    """Before discounts; by default the amount itself."""
    description: str | None = None


class AnthropicUse(_Group):
    """Tokens of an hour."""

    uncached_input_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0
    output_tokens: Count = 0
    requests: Count = 1


class AnthropicBill(_Strict):
    """Anthropic's answers."""

    costs: list[AnthropicCost] = []
    usage: list[AnthropicUse] = []
    refreshed_at: str | None = None
    """`data_refreshed_at`; by default the sandbox's time."""
    analytics: bool = True
    """False: the organisation may not use the analytics, only the legacy reports."""


class Bill(_Strict):
    """The whole document."""

    openai: OpenAIBill | None = None
    """Without it OpenAI's side answers from its seed."""
    anthropic: AnthropicBill = AnthropicBill()


def added(values: list[Any]) -> Any:
    """Return the sum of amounts; one amount alone stays as it was given, several become a string."""
    if len(values) == 1:
        return values[0]
    total = sum((read_amount(value).value for value in values), Fraction(0))
    places = 0
    while (total * 10**places).denominator != 1:
        places += 1
    return exact.plain(_decimal(total, places))


def _decimal(total: Fraction, places: int) -> Decimal:
    units = int(total * 10**places)
    return Decimal((int(units < 0), tuple(map(int, str(abs(units)))), -places))
