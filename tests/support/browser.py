"""A real browser for the console's tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


ARRIVES_MS = 60_000
"""Timeout for failures: until a page has what a test expects. Passing tests do not wait for it."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Provide a browser with an empty profile; the test is skipped if none is installed."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS), timeout=ARRIVES_MS)
        expect.set_options(timeout=ARRIVES_MS)
        try:
            yield browser
        finally:
            browser.close()
