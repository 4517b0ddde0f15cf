"""Authenticates and authorizes every request before anything else in it is examined.

Token: a link of `links` logs in and sets a signed cookie. Proxy: a trusted proxy names the user in headers, which are
accepted only from its addresses. A request that changes something must also carry its form's CSRF token and come from
one of our pages. A request with a foreign Host is always refused, as a protection against DNS rebinding.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from tallystream.console import links
from tallystream.console.config import LOOPBACK_NAMES, AuthConfig
from tallystream.console.errors import ForbiddenError

CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"
Role = Literal["viewer", "admin"]


@dataclass(frozen=True)
class Visitor:
    """The user of a request. `csrf` is the token of the user's forms."""

    name: str
    role: Role
    csrf: str

    @property
    def may_change(self) -> bool:
        """Whether the user may make changes."""
        return self.role == "admin"


class ConsoleAuthenticator:
    """Identifies the user of a request. `directory` is the console's folder."""

    def __init__(self, config: AuthConfig, directory: Path, port: int) -> None:
        self._config = config
        self._directory = directory
        self._key = links.key(directory)
        # Browsers ignore the port of cookies, so two consoles on one machine need different names to keep their logins.
        self.cookie = f"tallystream_{port}"
        self._ended: dict[str, float] = {}

    @property
    def kind(self) -> Literal["token", "proxy"]:
        """The configured way to log in."""
        return self._config.kind

    def host_is_ours(self, request: web.Request) -> bool:
        """Return whether the request's Host is one of this console's names."""
        given = request.headers.getall("Host", [])
        if len(given) != 1:
            return False
        try:
            name = urlsplit(f"//{given[0]}").hostname or ""
        except ValueError:
            return False
        shown = f"[{name}]" if ":" in name else name.lower()
        return shown in LOOPBACK_NAMES or shown in self._config.hosts

    def who(self, request: web.Request) -> Visitor | None:
        """Return the user, or None if nobody is logged in."""
        if self._config.kind == "proxy":
            return self._by_proxy(request)
        return self._by_cookie(request.cookies.get(self.cookie, ""))

    def log_in(self, token: str) -> tuple[str, int] | None:
        """Redeem a link. Return the cookie's value and lifetime in seconds, or None if the link is not valid."""
        if self._config.kind != "token" or not links.redeem(self._directory, token):
            return None
        seconds = int(self._config.session.total_seconds())
        payload = f"admin.{int(time.time()) + seconds}.{secrets.token_hex(16)}"
        return f"{payload}.{self._sign('login', payload)}", seconds

    def log_out(self, request: web.Request) -> None:
        """End the login of the request."""
        payload, _, _ = request.cookies.get(self.cookie, "").rpartition(".")
        now = time.time()
        self._ended = {one: until for one, until in self._ended.items() if until > now}
        self._ended[payload] = now + self._config.session.total_seconds()

    def check_change(self, request: web.Request, person: Visitor, given: str | None) -> None:
        """Check that a change comes from one of our pages and from a user who may make it.

        Raises:
            ForbiddenError: it does not, or the user may not make changes.

        """
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
            raise ForbiddenError("this request comes from another site", "use the console's own pages")
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise ForbiddenError("this request comes from another site", "use the console's own pages")
        if given is None or not _equal(given, person.csrf):
            raise ForbiddenError("the form does not belong to this login", "load the page again")
        if not person.may_change:
            raise ForbiddenError(f"{person.name} may not make changes", "ask an administrator to do it")

    def _by_cookie(self, value: str) -> Visitor | None:
        payload, _, signature = value.rpartition(".")
        if not _equal(signature, self._sign("login", payload)):
            return None
        _, until, _ = payload.split(".")
        if float(until) < time.time() or payload in self._ended:
            return None
        return Visitor("local", "admin", self._sign("csrf", payload))

    def _by_proxy(self, request: web.Request) -> Visitor | None:
        config = self._config
        try:
            peer = ip_address((request.remote or "").partition("%")[0])
        except ValueError:
            return None
        if not any(peer in network for network in config.proxies):
            return None
        names = request.headers.getall(config.user_header, [])
        if len(names) != 1 or not names[0].strip() or not names[0].isprintable():
            return None
        name = names[0].strip()[:200]
        groups = {one.strip() for line in request.headers.getall(config.groups_header, []) for one in line.split(",")}
        role: Role = "admin" if groups & config.admins else "viewer"
        return Visitor(name, role, self._sign("csrf", f"{name}\n{int(time.time()) // 86_400}"))

    def _sign(self, what: str, text: str) -> str:
        return hmac.new(self._key, f"{what}\n{text}".encode(errors="surrogateescape"), sha256).hexdigest()


def _equal(given: str, right: str) -> bool:
    """Compare in constant time. Header values may contain bytes that are not UTF-8, as surrogates."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), right.encode())
