"""Connection settings of a Kafka cluster, and their translation for aiokafka."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class KafkaSettings:
    """`bootstrap` is `host:port[,host:port...]`; `protocol` is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.

    `ca`, `cert` and `key` are PEM files; `cert` and `key` together are mutual TLS.
    """

    bootstrap: str
    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None when the protocol has no TLS.

        Raises:
            OSError: a file named here cannot be read. ssl.SSLError: a file named here is not valid.

        """
        if not self.protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context

    def client(self) -> dict[str, Any]:
        """Return the arguments every aiokafka client takes."""
        args: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": self.protocol}
        context = self.ssl_context()
        if context is not None:
            args["ssl_context"] = context
        if self.protocol.startswith("SASL"):
            args |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return args
