"""The proxy of the environment."""

from __future__ import annotations

import pytest

from tallystream.streams.service.http import environment_proxy

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://api.getport.io", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.getport.io", "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "https://api.getport.io", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".getport.io"}, "https://api.getport.io", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://api.getport.io", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://127.0.0.1:4020/port", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://localhost:4020/port", None),
    ],
)
def test_proxy_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str | None
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(url) == proxy
