"""A secured cluster, an HTTPS gateway and a bearer secret: exact rows, and no secret in anything that is written.

Kafka is a real broker with SASL_SSL and mutual TLS. All files that the run wrote are searched for each secret and for
the content that clients sent.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.support.files import files_in
from tests.support.product import Product, product
from tests.support.secured import SecuredKafka
from tests.support.tls import Authority
from tests.support.waiting import eventually

from tallystream.simulator import CANARY, Truth, compare

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
LISTENING = "0A"
"""A socket's state in /proc/net/tcp."""
USER_KEY = "user-key-of-the-secured-run"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with SecuredKafka(tmp_path_factory.mktemp("kafka"), authority) as running:
        yield running


def settings(
    broker: SecuredKafka, authority: Authority, listener: str, mechanism: str = "SCRAM-SHA-512"
) -> dict[str, str]:
    client, server = authority.issue("client"), authority.issue("gateway")
    return broker.environment(authority, listener, mechanism, client) | {
        "TALLYSTREAM_PREFIX": f"t-{listener}-{mechanism.lower()}",
        "TALLYSTREAM_PARTITIONS": "4",
        "TALLYSTREAM_USER_KEY": USER_KEY,
        "TALLYSTREAM_TLS_CERT": str(server.cert),
        "TALLYSTREAM_TLS_KEY": str(server.key),
        # The CA that the fleet trusts, like a company's own CA.
        "SSL_CERT_FILE": str(authority.ca),
    }


def run_fleet(running: Product, folder: Path) -> dict[str, str]:
    """Send a small fleet through it, check that it is exact, and return the secrets that were issued."""
    issued = running.json("connections", "create", "codex", "--bearer")
    assert issued["base_url"].startswith("https://"), "the supervisor knows that its gateway speaks TLS"
    bearer = re.search(r"Bearer (\S+)", json.dumps(issued["headers"]))
    assert bearer is not None
    (folder / "connection.json").write_text(json.dumps(issued))
    truth = folder / "truth.json"
    running.cli(
        "simulate", "--connection", str(folder / "connection.json"), "--agents", "5", "--requests", "200",
        "--seed", "11", "--duplicates", "0.1", "--truth", str(truth),
    )  # fmt: skip
    running.cli("wait", "--caught-up", "--timeout", "180")
    document = running.json("cost", "session-hours")
    assert document["complete"]
    assert compare(Truth.load(truth), document["rows"], alone=True) == []
    return {"the ingest id": issued["ingest_id"], "the bearer": bearer[1].strip('"\\')}


def sockets(pid: int) -> set[str]:
    """Return the addresses of the TCP sockets that a process listens on."""
    own, found = set(), set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(str(descriptor.readlink()))
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in own:
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                address = ipaddress.ip_address(socket.inet_ntop(family, packed))
                # gRPC listens on IPv4 with an IPv6 socket.
                found.add(str(getattr(address, "ipv4_mapped", None) or address))
    return found


@pytest.mark.parametrize(("listener", "mechanism"), [("sasl", "SCRAM-SHA-512"), ("sasl", "PLAIN"), ("mutual", "none")])
def test_rows_are_exact_over_tls_and_no_secret_is_written(
    broker: SecuredKafka, authority: Authority, tmp_path: Path, listener: str, mechanism: str
) -> None:
    environment = settings(broker, authority, listener, mechanism)
    with product(tmp_path / "data", environment | {"TALLYSTREAM_OPS_HOST": "0.0.0.0"}) as running:
        for component in running.run_file()["components"]:
            # `up` is ready when gateway and worker are; the others may still be starting
            listening = eventually(partial(sockets, component["pid"]), f"{component['name']} listens somewhere")
            assert listening <= {"127.0.0.1"}, f"{component['name']}: `up` keeps everything on this machine"
        secrets = run_fleet(running, tmp_path) | {
            "Kafka's password": broker.password,
            "the users' key": USER_KEY,
            "content of prompts or tools": CANARY,
        }
    searched = 0
    for path, held in files_in(tmp_path / "data", tmp_path / "data-up.log", broker._dir / "log"):
        searched += len(held)
        for what, secret in secrets.items():
            assert secret.encode() not in held, f"{path} holds {what}"
    assert searched > 100_000, "there was something to search"


def test_wrong_password_and_missing_certificate_are_explained(
    broker: SecuredKafka, authority: Authority, tmp_path: Path
) -> None:
    wrong = settings(broker, authority, "sasl") | {"TALLYSTREAM_KAFKA_PASSWORD": "wrong-password-of-the-tests"}
    stranger = {
        name: value
        for name, value in settings(broker, authority, "mutual", "none").items()
        if name not in ("TALLYSTREAM_KAFKA_CERT", "TALLYSTREAM_KAFKA_KEY")
    }
    for environment in (wrong, stranger):
        running = Product(tmp_path / "data", environment)
        said = running.cli("connections", "list", code=3)
        assert "wrong-password-of-the-tests" not in said
