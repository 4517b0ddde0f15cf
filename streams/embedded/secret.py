"""The broker's secret: who cannot read it, such as another user of this machine, can neither read nor write its topics.

Clients log in with SCRAM, which never sends the secret: a program that takes the broker's port while the broker is down
learns nothing from them, and cannot pass as the broker. Kafka keeps only a salted hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from tallystream.schemas.errors import UsageError
from tallystream.streams.embedded.config import Listener
from tallystream.streams.kafka.settings import KafkaSettings

FILE = "secret"
CLIENT_FILE = "client.properties"
"""The settings of Kafka's own tools, for `--command-config`."""
KNOWN_FILE = "secret.known"
"""SHA-256 of the secret that Kafka has the hash of."""
USER = "tallystream"
MECHANISM = "SCRAM-SHA-512"
LISTENER = "CLIENTS"
PROTOCOL = "SASL_PLAINTEXT"
_MODULES = "org.apache.kafka.common.security"
BYTES = 32


def ensure(directory: Path) -> str:
    """Return the secret of the broker whose data are in `directory`; creates it (mode 0600) the first time.

    Safe for several processes at once: the complete file is hard-linked into place, and the first process wins.

    Raises:
        UsageError: it cannot be created or read, or it is not this user's.

    """
    path = directory / FILE
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            temporary = directory / f".{FILE}-{os.getpid()}-{secrets.token_hex(4)}"
            try:
                write_private(temporary, secrets.token_hex(BYTES))
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as exc:
        raise UsageError(
            f"the embedded Kafka's secret {path} cannot be created: {exc.strerror}", "choose another --data-dir"
        ) from exc
    return read(directory)


def read(directory: Path) -> str:
    """Return the secret of the broker whose data are in `directory`.

    Raises:
        UsageError: there is none, it cannot be read, or it is not this user's.

    """
    path = directory / FILE
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd) as file:
            found = os.fstat(fd)
            if found.st_uid not in (os.geteuid(), 0) or not stat.S_ISREG(found.st_mode):
                raise UsageError(f"{path} belongs to another user or is not a file", "remove it and start again")
            if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(fd, 0o600)
            text = file.read().strip()
    except (OSError, ValueError) as exc:
        raise UsageError(
            f"the embedded Kafka's secret {path} cannot be read: {getattr(exc, 'strerror', None) or exc}",
            "it is created when the broker starts: restart `tallystream up` (or `tallystream kafka`) as the same user",
        ) from exc
    if not text.isalnum():
        raise UsageError(f"{path} does not contain a secret", "remove it and restart: a new one is created")
    return text


def settings(directory: Path, bootstrap: str) -> KafkaSettings:
    """Return the settings with which clients reach the broker whose data are in `directory`.

    Raises:
        UsageError: its secret cannot be read.

    """
    return KafkaSettings(bootstrap, PROTOCOL, MECHANISM, USER, read(directory))


def clients_listener(port: int, secret: str) -> Listener:
    """Return the listener of clients, and of the broker's connections to itself."""
    login = f'{_MODULES}.scram.ScramLoginModule required username="{USER}" password="{secret}";'
    return Listener(
        port,
        LISTENER,
        PROTOCOL,
        {"sasl.enabled.mechanisms": MECHANISM, f"{MECHANISM.lower()}.sasl.jaas.config": login},
        mechanism=MECHANISM,
    )


def plain_listener(port: int, secret: str, name: str) -> Listener:
    """Return a listener that needs nothing of Kafka's metadata: of the controller, and to set the hash.

    Only the JVM that owns the port sends the secret, to itself, and it is another one than the clients'.
    """
    login = f'{_MODULES}.plain.PlainLoginModule required username="{USER}" password="{secret}" user_{USER}="{secret}";'
    return Listener(
        port,
        name,
        PROTOCOL,
        {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": login},
        mechanism="PLAIN",
    )


def controllers(secret: str) -> str:
    """Return the secret of the controller's listener, which follows from the clients' but does not reveal it."""
    return hmac.new(secret.encode(), b"controller", hashlib.sha256).hexdigest()


def is_known(directory: Path, secret: str) -> bool:
    """Tell whether Kafka has this secret's hash: not in a data dir of an older version, or if the file was replaced."""
    try:
        return (directory / KNOWN_FILE).read_text() == _fingerprint(secret)
    except (OSError, ValueError):
        return False


def set_known(directory: Path, secret: str) -> None:
    """Note that Kafka has this secret's hash."""
    write_private(directory / KNOWN_FILE, _fingerprint(secret))


def scram(secret: str, user: str | None = None) -> str:
    """Return the argument of Kafka's tools with which Kafka stores the secret's hash."""
    name = f"name={user}," if user else ""
    return f"{MECHANISM}=[{name}password={secret}]"


def client_properties(kafka: KafkaSettings) -> str:
    """Return the settings in the form of Kafka's own tools."""
    module = "plain.PlainLoginModule" if kafka.sasl_mechanism == "PLAIN" else "scram.ScramLoginModule"
    login = f'{_MODULES}.{module} required username="{kafka.username}" password="{kafka.password}";'
    return (
        f"bootstrap.servers={kafka.bootstrap}\nsecurity.protocol={kafka.protocol}\n"
        f"sasl.mechanism={kafka.sasl_mechanism}\nsasl.jaas.config={login}\n"
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, by rename."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, 0o600)
        file.write(text)
        file.flush()
        os.fsync(fd)
    temporary.replace(path)


def _fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
