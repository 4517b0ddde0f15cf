"""TLS on the gateway's own port: real handshakes, a renewed certificate, and invalid certificates."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from tests.integration.gateway.conftest import Deployment
from tests.integration.gateway.test_http import PROTOBUF, body, usage
from tests.support.gateway import config_of, logs_path, running
from tests.support.tls import Authority, Pair
from tests.support.waiting import ANSWER

from tallystream.schemas.errors import UsageError
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway.http.tls import Certificate


def serial(url: str, ca: Path) -> str:
    """Return the serial number of the certificate that a new connection is shown."""

    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=ANSWER) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
    ):
        shown = secure.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


@pytest.mark.kafka
async def test_usage_arrives_over_tls_from_clients_that_trust_the_certificate(
    deployment: Deployment, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("gateway")
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, tls_cert=pair.cert, tls_key=pair.key)
    async with running(config) as gateway, aiohttp.ClientSession() as http:
        assert gateway.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(authority.ca))
        sent = body("over-tls", Encoding.PROTOBUF, events=2)
        async with http.post(gateway.url + logs_path(), data=sent, headers=PROTOBUF, ssl=trusting) as response:
            assert response.status == 200
        assert len(await usage(deployment, "over-tls")) == 2

        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.post(gateway.url + logs_path(), data=sent, headers=PROTOBUF)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(authority.ca)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(aiohttp.ClientError):
            await http.post(gateway.url + logs_path(), data=sent, headers=PROTOBUF, ssl=old)
        with pytest.raises(aiohttp.ClientError):
            await http.post(gateway.url.replace("https", "http") + logs_path(), data=sent, headers=PROTOBUF)


@pytest.mark.kafka
async def test_renewed_certificate_is_served_without_a_restart(deployment: Deployment, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    first, second = authority.issue("first"), authority.issue("second")
    live = Pair(Path(shutil.copy(first.cert, tmp_path / "tls.crt")), Path(shutil.copy(first.key, tmp_path / "tls.key")))
    certificate = Certificate(live.cert, live.key)
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, tls_cert=live.cert, tls_key=live.key)
    async with running(config) as gateway:
        before = await asyncio.to_thread(serial, gateway.url, authority.ca)
        assert not certificate.refresh(), "nothing has changed"

        shutil.copy(second.cert, live.cert)
        assert not certificate.refresh(), "its key is not there yet"
        gateway._http.refresh_certificate()
        assert await asyncio.to_thread(serial, gateway.url, authority.ca) == before

        shutil.copy(second.key, live.key)
        assert certificate.refresh()
        gateway._http.refresh_certificate()
        assert await asyncio.to_thread(serial, gateway.url, authority.ca) != before


def test_invalid_certificate_is_reported_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(UsageError, match="cannot be used"):
        Certificate(one.cert, other.key)
    with pytest.raises(UsageError, match="cannot be used"):
        Certificate(tmp_path / "missing", one.key)
