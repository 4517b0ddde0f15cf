"""A PostgreSQL server for the tests, in its own folder and on a loopback port, stopped by its process id."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.waiting import ANSWER, eventually

from tallystream.streams.process.tcp_ports import pick


def binaries() -> Path | None:
    """Return the folder of the newest `postgres` and `initdb`, None if there is none."""
    folders = [Path(found).resolve().parent for name in ("postgres",) if (found := shutil.which(name))]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists() and (folder / "initdb").exists()), None)


def _as_somebody() -> dict[str, Any]:
    """Return how to start a process as another user, because PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    pytest.skip("PostgreSQL does not run as root, and there is neither `postgres` nor `nobody` here")


class PostgresServer:
    """A running server; `url` is that of its database `postgres`."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.port = port
        self.process = process

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://ledger@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create a new database; return its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url_of(name)


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Provide a server; the test is skipped if PostgreSQL is not installed."""
    folder = binaries()
    if folder is None:
        pytest.skip("there is no PostgreSQL server here (Debian: apt-get install postgresql)")
    somebody = _as_somebody()
    # Not below pytest's folder, which other users cannot enter.
    home = Path(tempfile.mkdtemp(prefix="tallystream-postgres-", dir="/tmp"))
    try:
        if somebody:
            os.chown(home, somebody["user"], somebody["group"])
        data = home / "data"
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(home)}
        subprocess.run(
            [str(folder / "initdb"), "-D", str(data), "-U", "ledger", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, env=environment, cwd=home, **somebody,
        )  # fmt: skip
        port = pick()
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    str(folder / "postgres"), "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                    "-c", f"unix_socket_directories={home}", "-c", "fsync=off", "-c", "max_connections=50",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=home, **somebody,
            )  # fmt: skip
        server = PostgresServer(home, port, process)
        try:
            _await(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(ANSWER)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _await(server: PostgresServer) -> None:
    def answers() -> bool:
        assert server.process.poll() is None, (server.folder / "log").read_text()
        try:
            psycopg.connect(server.url, connect_timeout=30).close()
        except psycopg.Error:
            return False
        return True

    eventually(answers, lambda: (server.folder / "log").read_text())
