"""Certificates for tests, created with the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate and its PKCS#8 key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority in `directory`; `ca` is what its clients trust."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("the program openssl is not here")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        # It has everything that RFC 5280 requires of a certificate, and Python 3.13 of trusted ones.
        self._pair = self._key_and(
            "ca",
            [
                *("-x509", "-subj", "/CN=authority of the tests", "-days", "2"),
                *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            ],
        )
        self.ca = self._pair.cert

    def issue(self, name: str) -> Pair:
        """Return a certificate for 127.0.0.1 and localhost, signed by this authority, good for servers and clients."""
        return self._key_and(
            name,
            [
                *("-x509", "-CA", str(self._pair.cert), "-CAkey", str(self._pair.key), "-days", "2"),
                *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
                *("-addext", "basicConstraints=critical,CA:FALSE"),
                *("-addext", "keyUsage=critical,digitalSignature"),
                *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
                *("-addext", "authorityKeyIdentifier=keyid"),
            ],
        )

    def _key_and(self, name: str, arguments: list[str]) -> Pair:
        pair = Pair(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        argv = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", *arguments]
        argv += ["-keyout", str(pair.key), "-out", str(pair.cert)]
        subprocess.run(argv, check=True, capture_output=True)
        return pair
