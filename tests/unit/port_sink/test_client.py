"""Port's client: its base URL, and renewal of tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support.clock import HandClock

from tallystream.agents.port_sink.port.client import PortClientConfig
from tallystream.agents.port_sink.port.token import AccessTokens


async def test_token_is_renewed_before_expiry_and_after_a_401() -> None:
    clock, asked = HandClock(), 0

    async def ask() -> tuple[str, float]:
        nonlocal asked
        asked += 1
        return f"token {asked}", 10_800.0

    tokens = AccessTokens(ask, clock)
    first = await tokens.get()
    clock.seconds += 10_400
    assert await tokens.get() is first
    clock.seconds += 200  # 200 s before its end
    second = await tokens.get()
    assert (second.text, asked) == ("token 2", 2)
    assert "token 2" not in repr(second)
    tokens.refused(first)
    assert await tokens.get() is second, "what is refused is the old one"
    tokens.refused(second)
    assert (await tokens.get()).text == "token 3"
    assert tokens.longest == 10_800


@given(st.sampled_from(["https://api.getport.io", "https://api.getport.io/", "https://api.getport.io/v1/"]))
def test_base_url_may_include_the_version(url: str) -> None:
    config = PortClientConfig("id", "the-secret", base_url=url)
    assert config.url == "https://api.getport.io/v1"
    assert "the-secret" not in repr(config)
