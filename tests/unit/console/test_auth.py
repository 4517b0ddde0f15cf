"""Access to the console: one-time links, signed logins that expire, trusted proxies, and protected forms."""

from __future__ import annotations

import time
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import time_machine
from aiohttp.test_utils import make_mocked_request
from pydantic import ValidationError

from tallystream.console import links
from tallystream.console.auth import ConsoleAuthenticator, Visitor
from tallystream.console.config import AuthConfig
from tallystream.console.errors import ForbiddenError
from tallystream.console.models import ConnectionTest


def request(remote: str = "127.0.0.1", method: str = "GET", **headers: str) -> Any:
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: (remote, 1) if name == "peername" else default
    named = {name.replace("_", "-"): value for name, value in {"Host": "localhost:4319", **headers}.items()}
    return make_mocked_request(method, "/", headers=named, transport=transport)


def token(folder: Path) -> str:
    return links.new_link(folder, "http://127.0.0.1:4319").partition("token=")[2]


def authenticator(folder: Path, **config: Any) -> ConsoleAuthenticator:
    return ConsoleAuthenticator(AuthConfig(**config), folder / "console", 4319)


def logged_in(auth: ConsoleAuthenticator, folder: Path) -> str:
    given = auth.log_in(token(folder))
    assert given is not None
    return f"{auth.cookie}={given[0]}"


def test_login_link_works_once_within_ten_minutes(tmp_path: Path) -> None:
    auth = authenticator(tmp_path)
    first = token(tmp_path)
    assert auth.log_in(first) is not None
    assert auth.log_in(first) is None
    assert auth.log_in("made up") is None
    old = token(tmp_path)
    with time_machine.travel(time.time() + links.LIFE + 5):
        assert auth.log_in(old) is None
    assert list((tmp_path / "console" / "links").iterdir()) == []


def test_login_survives_a_restart_and_expires(tmp_path: Path) -> None:
    auth = authenticator(tmp_path, session=timedelta(hours=1))
    cookie = logged_in(auth, tmp_path)
    again = authenticator(tmp_path, session=timedelta(hours=1))
    person = again.who(request(Cookie=cookie))
    assert person is not None
    assert person.may_change
    with time_machine.travel(time.time() + 3601):
        assert again.who(request(Cookie=cookie)) is None
    again.log_out(request(Cookie=cookie))
    assert again.who(request(Cookie=cookie)) is None


def test_modified_cookie_is_rejected(tmp_path: Path) -> None:
    auth = authenticator(tmp_path)
    cookie = logged_in(auth, tmp_path)
    payload, _, signature = cookie.rpartition(".")
    for forged in (
        f"{payload}.{'0' * 64}",
        f"{payload}x.{signature}",
        f"{auth.cookie}=",
        f"{auth.cookie}=a.b.c",
        "",
    ):
        assert auth.who(request(Cookie=forged)) is None
    assert auth._by_cookie("a.\udcff") is None, "bytes of a header that are not UTF-8"
    other = authenticator(tmp_path / "elsewhere")
    assert other.who(request(Cookie=cookie)) is None


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:4319", True), ("127.0.0.1", True), ("[::1]:4319", True), ("console.example", True),
        ("CONSOLE.example:443", True), ("evil.example", False), ("localhost.evil.example", False), ("", False),
        ("127.0.0.1.nip.io", False),
    ],
)  # fmt: skip
def test_unknown_host_names_are_refused(tmp_path: Path, host: str, ours: bool) -> None:
    auth = authenticator(tmp_path, hosts=frozenset({"console.example"}))
    assert auth.host_is_ours(request(Host=host)) is ours


def test_proxy_headers_are_accepted_only_from_trusted_networks(tmp_path: Path) -> None:
    auth = authenticator(tmp_path, kind="proxy", proxies=(ip_network("10.1.0.0/16"),), admins=frozenset({"finops"}))
    named = {"X_Forwarded_User": "ann@example.com"}
    assert auth.who(request("10.2.0.1", **named)) is None
    assert auth.who(request("10.1.0.1")) is None
    viewer = auth.who(request("10.1.0.1", **named, X_Forwarded_Groups="dev, ops"))
    admin = auth.who(request("10.1.0.1", **named, X_Forwarded_Groups="dev, finops"))
    assert viewer is not None
    assert admin is not None
    assert (viewer.name, viewer.may_change, admin.may_change) == ("ann@example.com", False, True)
    assert auth.log_in(token(tmp_path)) is None, "a link is no way around the proxy"


def test_changes_need_csrf_token_origin_and_role(tmp_path: Path) -> None:
    auth = authenticator(tmp_path)
    person = Visitor("local", "admin", "c" * 64)
    auth.check_change(request(Origin="http://localhost:4319"), person, person.csrf)
    auth.check_change(request(), person, person.csrf)
    for asked, given in (
        (request(), None),
        (request(), "d" * 64),
        (request(), "\udcff"),
        (request(Origin="http://evil.example"), person.csrf),
        (request(Origin="null"), person.csrf),
        (request(Sec_Fetch_Site="cross-site"), person.csrf),
    ):
        with pytest.raises(ForbiddenError):
            auth.check_change(asked, person, given)
    with pytest.raises(ForbiddenError, match="may not make changes"):
        auth.check_change(request(), Visitor("v", "viewer", person.csrf), person.csrf)


def test_login_secrets_are_readable_only_by_the_owner(tmp_path: Path) -> None:
    token(tmp_path)
    authenticator(tmp_path)
    assert (tmp_path / "console" / "key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "console" / "links").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("bearer", ["a b", "a\r\nHost: x", "\x00", "ü", ""])
def test_bearer_secret_cannot_inject_headers(bearer: str) -> None:
    with pytest.raises(ValidationError):
        ConnectionTest(ingest_id="x" * 16, bearer=bearer)
