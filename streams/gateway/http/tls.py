"""The gateway's own certificate, read again when its files change: those who renew it need not restart the gateway."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from tallystream.schemas.errors import UsageError

log = structlog.get_logger()


class Certificate:
    """A certificate chain and its key, as PEM files. `context` serves them; connections that are open keep theirs.

    Raises:
        UsageError: a file cannot be read, or the two do not belong together.

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
        """Take the files again if they have changed, and tell whether it did; unusable ones change nothing."""
        try:
            if self._stamps() == self._seen:
                return False
            # Judged by a context of its own: one whose key is refused would be left with half of the new pair.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key, password=_no_password)
            self._load()
        except (OSError, ssl.SSLError) as exc:
            log.error("certificate_not_renewed", error=type(exc).__name__, hint="the one before it stays in use")  # noqa: TRY400
            return False
        log.info("certificate_renewed")
        return True


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal and wait.
    raise OSError("the key is encrypted; give it without a password")
