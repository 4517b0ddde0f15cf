"""Shared parts of our HTTP clients: trusted CAs, the environment's proxy, Retry-After, and pages in place of JSON."""

from __future__ import annotations

import math
import ssl
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from tallystream.schemas.errors import UsageError
from tallystream.streams.service.clock import Clock


def trust(ca: Path | None, setting: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the CAs of a PEM file, or the system's without one; `setting` is its name in
    messages.

    Raises:
        UsageError: the CA file cannot be read or does not hold certificates.

    """
    try:
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(f"the CA file {ca} cannot be used: {exc.strerror or exc}", f"{setting}: a PEM file") from exc


def retry_after(text: str, clock: Clock) -> float | None:
    """Return a Retry-After header in seconds: a number, or an HTTP date (RFC 9110); None when it is not valid."""
    try:
        value = float(text)
    except ValueError:
        try:
            value = parsedate_to_datetime(text).timestamp() - clock.now_ns() / 1e9
        except ValueError:
            return None
    return max(0.0, value) if math.isfinite(value) else None


def environment_proxy(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY or HTTP_PROXY names for a URL, unless NO_PROXY excepts its host. Never for
    this machine.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    proxies = getproxies_environment()
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    found = proxies.get(parts.scheme)
    return found if found is None or "://" in found else f"http://{found}"


def is_page(body: bytes) -> bool:
    """Return whether an answer is a web page: what a login page or a proxy answers in place of an API."""
    return body.lstrip()[:1] == b"<"


PAGE = "a login page or proxy answered with a web page"
"""The hint for that."""
