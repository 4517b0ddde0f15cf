"""Who asks, and what they may do: decided for every request before anything else is looked at.

Token: a link of `links` logs in and gives a signed cookie. Proxy: a trusted proxy names the user in headers, which are
taken from its addresses alone. A request that changes something also carries a token of its form (CSRF), and comes from
a page of ours. A Host that is not ours is refused, whatever it carries (DNS rebinding).
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
    """Who asks. `csrf` is what a form of theirs carries."""

    name: str
    role: Role
    csrf: str

    @property
    def may_change(self) -> bool:
        """Whether they may change something."""
        return self.role == "admin"


class ConsoleAuthenticator:
    """Knows people by their requests. `directory` is the console's folder."""

    def __init__(self, config: AuthConfig, directory: Path, port: int) -> None:
        self._config = config
        self._directory = directory
        self._key = links.key(directory)
        # Browsers keep cookies by host without the port: two consoles on one machine must not end each other's logins.
        self.cookie = f"tallystream_{port}"
        self._ended: dict[str, float] = {}

    @property
    def kind(self) -> Literal["token", "proxy"]:
        """How people log in."""
        return self._config.kind

    def host_is_ours(self, request: web.Request) -> bool:
        """Tell whether the request names a host that this console is reached by."""
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
        """Return who asks, None when nobody is known."""
        if self._config.kind == "proxy":
            return self._by_proxy(request)
        return self._by_cookie(request.cookies.get(self.cookie, ""))

    def log_in(self, token: str) -> tuple[str, int] | None:
        """Use a link up; return the cookie's value and its seconds, None when the link is not good (any more)."""
        if self._config.kind != "token" or not links.redeem(self._directory, token):
            return None
        seconds = int(self._config.session.total_seconds())
        payload = f"admin.{int(time.time()) + seconds}.{secrets.token_hex(16)}"
        return f"{payload}.{self._sign('login', payload)}", seconds

    def log_out(self, request: web.Request) -> None:
        """End the login that the request carries."""
        payload, _, _ = request.cookies.get(self.cookie, "").rpartition(".")
        now = time.time()
        self._ended = {one: until for one, until in self._ended.items() if until > now}
        self._ended[payload] = now + self._config.session.total_seconds()

    def check_change(self, request: web.Request, person: Visitor, given: str | None) -> None:
        """Make sure that a change comes from a page of ours and from somebody who may.

        Raises:
            ForbiddenError: it does not.

        """
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
            raise ForbiddenError("this request comes from another site", "use the console's own pages")
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise ForbiddenError("this request comes from another site", "use the console's own pages")
        if given is None or not _equal(given, person.csrf):
            raise ForbiddenError("the form is not (any more) one of this login", "load the page again")
        if not person.may_change:
            raise ForbiddenError(f"{person.name} may look, not change", "ask an administrator")

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
    """Compare in constant time. What comes in a header may hold bytes that are not UTF-8, as surrogates."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), right.encode())
