"""A real broker configured as on a secured cluster: SASL over TLS on one listener, client certificates on another."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.tls import Authority, Pair

from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.embedded.config import HOST, BrokerConfig, Listener
from tallystream.streams.process import tcp_ports

MODULES = "org.apache.kafka.common.security"


class SecuredKafka(EmbeddedKafka):
    """`sasl` and `mutual` are the addresses; `user` with `password` opens the first by SCRAM-SHA-512 and by PLAIN."""

    user, password = "tally", "kafka-password-of-the-tests"

    def __init__(self, data_dir: Path, authority: Authority) -> None:
        super().__init__(data_dir)
        sasl, mutual = tcp_ports.pick(), tcp_ports.pick()
        self.sasl, self.mutual = f"{HOST}:{sasl}", f"{HOST}:{mutual}"
        server = authority.issue("broker")
        keystore = server.cert.with_suffix(".pem")
        keystore.write_text(server.key.read_text() + server.cert.read_text())
        tls = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.ca),
        }
        login = {
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "scram-sha-512.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule required;",
            "plain.sasl.jaas.config": f'{MODULES}.plain.PlainLoginModule required user_{self.user}="{self.password}";',
        }
        self._guarded = (
            Listener(sasl, "GUARDED", "SASL_SSL", tls | login),
            Listener(mutual, "MUTUAL", "SSL", tls | {"ssl.client.auth": "required"}),
        )

    def _configure(self) -> BrokerConfig:
        config = super()._configure()
        return BrokerConfig(config.controller_port, (*config.listeners, *self._guarded), config.overrides)

    def _format(self, command: list[str], class_path: str) -> None:
        user = f"SCRAM-SHA-512=[name={self.user},password={self.password}]"
        argv = [*command, "-cp", class_path, "kafka.tools.StorageTool", "format", "--add-scram", user]
        argv += ["-t", "AAAAAAAAQACAAAAAAAAAAQ", "-c", "server.properties"]
        subprocess.run(argv, cwd=self._dir, check=True, capture_output=True)

    def environment(self, authority: Authority, listener: str, mechanism: str, client: Pair) -> dict[str, str]:
        """Return the settings that reach it: `listener` is sasl or mutual."""
        ca = {"TALLYSTREAM_KAFKA_CA": str(authority.ca)}
        if listener == "mutual":
            return ca | {
                "TALLYSTREAM_KAFKA": self.mutual,
                "TALLYSTREAM_KAFKA_PROTOCOL": "SSL",
                "TALLYSTREAM_KAFKA_CERT": str(client.cert),
                "TALLYSTREAM_KAFKA_KEY": str(client.key),
            }
        return ca | {
            "TALLYSTREAM_KAFKA": self.sasl,
            "TALLYSTREAM_KAFKA_PROTOCOL": "SASL_SSL",
            "TALLYSTREAM_KAFKA_SASL_MECHANISM": mechanism,
            "TALLYSTREAM_KAFKA_USERNAME": self.user,
            "TALLYSTREAM_KAFKA_PASSWORD": self.password,
        }
