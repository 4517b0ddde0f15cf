"""The gateway's certificate, which is reloaded when its files change, so that renewing it does not need a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from tallystream.schemas.errors import UsageError

log = structlog.get_logger()


class Certificate:
    """A certificate chain and its key, as PEM files. New connections use `context`; open connections keep their
    certificate.

    Raises:
        UsageError: a file cannot be read, or certificate and key do not match.

    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert, self._key = cert, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        try:
            self._load()
        except (OSError, ssl.SSLError) as exc:
            raise UsageError(
                f"the certificate {cert} with the key {key} cannot be used: {exc}",
                "TALLYSTREAM_TLS_CERT and TALLYSTREAM_TLS_KEY name PEM files: the chain, leaf first, and its key",
            ) from exc

    def _load(self) -> None:
        self._seen = self._stamps()
        self.context.load_cert_chain(self._cert, self._key, password=_no_password)

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        states = [path.stat() for path in (self._cert, self._key)]
        return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)

    def refresh(self) -> bool:
        """Reload the files if they have changed, and return whether it did; unusable files are ignored."""
        try:
            if self._stamps() == self._seen:
                return False
            # Checked in a separate context, because a context whose key is refused would keep half of the new pair.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key, password=_no_password)
            self._load()
        except (OSError, ssl.SSLError) as exc:
            log.error("certificate_not_renewed", error=type(exc).__name__, hint="the previous one stays in use")  # noqa: TRY400
            return False
        log.info("certificate_renewed")
        return True


def _no_password() -> str:
    # Without this, OpenSSL would ask for a password on the terminal and wait.
    raise OSError("the key is encrypted; give it without a password")
