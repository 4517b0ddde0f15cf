"""Prices each request with genai-prices' public `calc_price`, as an oracle that is independent of our code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from genai_prices import Usage, calc_price

from tallystream.simulator.model import Response

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STANDARD = frozenset({None, "default", "normal"})
"""What a response says of its tier and its speed when it was billed at the list price."""


def dollars(response: Response) -> Decimal | None:
    """Return what the response costs, or None when the book does not know the model or does not know it like that.

    An unknown tier or speed has to be asked for: `calc_price` takes it for the standard one. What Gemini's tools put
    into the prompt costs what input does.
    """
    asked = {"service_tier": response.service_tier, "speed": response.speed}
    context = {name: value for name, value in asked.items() if value is not None and value not in STANDARD}
    written = response.cache_write_5m + response.cache_write_1h
    usage = Usage(
        input_tokens=response.input_uncached + response.cache_read + written + response.tool,
        cache_read_tokens=response.cache_read,
        cache_write_tokens=written,
        **({"cache_write_1h_tokens": response.cache_write_1h} if response.cache_write_1h else {}),
        output_tokens=response.output,
    )
    try:
        price = calc_price(
            usage,
            response.model,
            provider_id=response.session.provider,
            genai_request_timestamp=_EPOCH + timedelta(microseconds=response.at_ns // 1000),
            price_context=context or None,
        )
    except LookupError:
        return None
    if context and not any(variant.when == context for variant in price.model.price_variants or ()):
        return None
    return price.total_price
