"""The broker's lifecycle: lock the data dir, format it once, start the JVM, wait until it is usable, stop it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from tallystream.schemas.errors import UnfitError, UnreachableError, UsageError
from tallystream.streams.embedded import class_cache, jars, readiness, secret
from tallystream.streams.embedded.config import HOST, BrokerConfig, render
from tallystream.streams.embedded.dirlock import DirLock
from tallystream.streams.embedded.java_tools import JavaTools, java_environment, last_line
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.process import tcp_ports
from tallystream.streams.process.children import spawn

JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    # Kafka's own use of native libraries (compression) and of Unsafe (memory maps) is known: suppress Java's warnings.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.storage.internals.log.LogManager=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)
START_SECONDS = 90.0
"""Seconds until the broker must be ready. After a kill it first checks its logs, which takes long with much data."""
STOP_SECONDS = 20.0
LOG_TAIL = 2000
PORTS_FILE = "ports.json"


class EmbeddedKafka:
    """Apache Kafka on 127.0.0.1, its data in `data_dir`, its jars in `cache_dir`. A context manager.

    `port` 0 chooses the port of the last start if it is free, else a free one. The data dir belongs to one broker at a
    time, held by a kernel lock that ends with the JVM. The JVM ends with this process, even if this process is killed.
    With `output` None the JVM writes to the stderr of this process, otherwise it appends to that file. `cluster_id` is
    for a new data dir that joins others (whose `overrides` name each other as voters); by default it gets a new id.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        cache_dir: Path | None = None,
        port: int = 0,
        mirror: str | None = None,
        output: Path | None = Path("broker.log"),
        overrides: Mapping[str, str] | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self._dir = data_dir.resolve()
        self._cache_dir = cache_dir or jars.default_cache_dir()
        self._wanted_port = port
        self._mirror = mirror
        self._output = self._dir / output if output else None
        self._overrides = dict(overrides or {})
        # The prefix "c" is needed because an id that begins with a dash (one in 64) would be parsed as an option.
        self._cluster_id = cluster_id or "c" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        self._lock = DirLock(self._dir / ".lock")
        self._pid_file = self._dir / "jvm.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._secret = ""
        self.port = port

    @property
    def bootstrap(self) -> str:
        """Return `host:port`, once started."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Return the pid of the JVM, once started."""
        assert self._process is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return the JVM's exit code, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def settings(self) -> KafkaSettings:
        """Return the settings with which clients connect, once started."""
        return secret.settings(self._dir, self.bootstrap)

    def start(self) -> None:
        """Start the broker and return when a group can join.

        Raises:
            UsageError: the extra `embedded` is missing, the data dir is in use, the port is taken.
            UnreachableError: the jars could not be downloaded, or the broker was not ready in time.
            UnfitError: the broker does not start on this data.

        """
        java = JavaTools(*prepare(self._cache_dir, mirror=self._mirror), self._dir)
        self._lock.acquire()
        try:
            self._secret = secret.ensure(self._dir)
            config = self._configure()
            self._introduce(java, config)
            self._write(config)
            secret.write_private(self._dir / secret.CLIENT_FILE, secret.client_properties(self.settings))
            self._spawn(java)
            self._pid_file.write_text(f"{self.pid}\n")
            self._await_ready(self.settings)
        except BaseException:
            self.stop()
            raise

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the broker, by force after `seconds`; has no effect when it is not running."""
        self._end(seconds)
        self._lock.release()

    def _end(self, seconds: float = STOP_SECONDS) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)  # a suspended JVM handles the signal only after it continues
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()
            self._pid_file.unlink(missing_ok=True)

    def _configure(self) -> BrokerConfig:
        """Choose the ports, if possible the last ones, because clients may still be connected to them."""
        if self._wanted_port and not tcp_ports.is_free(self._wanted_port, HOST):
            raise UsageError(f"port {self._wanted_port} is taken", "stop what listens there, or choose another --port")
        last = _last_ports(self._dir)
        self.port = self._wanted_port or usable_port(self._dir)
        controller = last.get("controller_port", 0)
        if not controller or controller == self.port or not tcp_ports.is_free(controller, HOST):
            controller = tcp_ports.pick(self.port)
        temporary = self._dir / f"{PORTS_FILE}.tmp"
        temporary.write_text(json.dumps({"port": self.port, "controller_port": controller}))
        temporary.replace(self._dir / PORTS_FILE)
        return BrokerConfig(
            secret.plain_listener(controller, secret.controllers(self._secret), "CONTROLLER"),
            (secret.clients_listener(self.port, self._secret),),
            self._overrides,
        )

    def _write(self, config: BrokerConfig) -> None:
        secret.write_private(self._dir / "server.properties", render(config.properties()))

    def _introduce(self, java: JavaTools, config: BrokerConfig) -> None:
        """Give a new data dir its identity, and Kafka the hash of the secret. An existing data dir keeps its identity,
        and gets the hash if it is of an older version or the secret is a new one.
        """
        if not (self._dir / "log" / "meta.properties").exists():
            self._write(config)
            self._format(java)
        elif secret.is_known(self._dir, self._secret):
            return
        else:
            self._teach(java, config)
        secret.set_known(self._dir, self._secret)

    def _format(self, java: JavaTools) -> None:
        # `--ignore-formatted`: it recovers from a kill between the first file and the last without manual work.
        arguments = ["format", "--ignore-formatted", "-t", self._cluster_id, "-c", "server.properties"]
        failed = java.run("kafka.tools.StorageTool", *arguments, "--add-scram", secret.scram(self._secret, secret.USER))
        if failed is not None:
            raise UnfitError(
                f"Kafka could not format {self._dir}: {failed}",
                "check for a full disk or the data of another Kafka; choose another --data-dir to start afresh",
            )

    def _teach(self, java: JavaTools, config: BrokerConfig) -> None:
        """Write the hash of the secret into Kafka's metadata. Kafka runs for it on a port and with a secret that only
        this method knows, because the first user cannot log in with what is not there yet.
        """
        port, once = tcp_ports.pick(self.port, config.controller.port), secrets.token_hex(secret.BYTES)
        kafka = KafkaSettings(f"{HOST}:{port}", secret.PROTOCOL, "PLAIN", secret.USER, once)
        self._write(replace(config, listeners=(secret.plain_listener(port, once, secret.LISTENER),)))
        login = self._dir / "teach.properties"
        self._spawn(java)
        try:
            self._await_ready(kafka)
            secret.write_private(login, secret.client_properties(kafka))
            arguments = ["--bootstrap-server", kafka.bootstrap, "--command-config", login.name, "--alter"]
            arguments += ["--entity-type", "users", "--entity-name", secret.USER]
            failed = java.run("kafka.admin.ConfigCommand", *arguments, "--add-config", secret.scram(self._secret))
        finally:
            self._end()
            login.unlink(missing_ok=True)
        if failed is not None:
            raise UnfitError(f"Kafka could not be given its secret: {failed}", f"its data: {self._dir}; start it again")

    def _spawn(self, java: JavaTools) -> None:
        argv = [*java.argv(main="kafka.Kafka"), "server.properties"]
        if self._output is None:
            self._process = spawn(
                argv, cwd=self._dir, env=java_environment(), stdin=subprocess.DEVNULL, pass_fds=(self._lock.fd,)
            )
            return
        with self._output.open("ab") as output:
            self._process = spawn(
                argv,
                cwd=self._dir,
                env=java_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(self._lock.fd,),
            )

    def _await_ready(self, kafka: KafkaSettings) -> None:
        deadline = time.monotonic() + START_SECONDS

        def ended() -> bool:
            return self.poll() is not None

        if readiness.await_group(kafka, deadline, ended):
            return
        where = f"; see {self._output}" if self._output else ""
        if ended():
            raise UnfitError(
                f"Kafka ended with {self.poll()} while it started: {self._tail()}", f"its data: {self._dir}{where}"
            )
        raise UnreachableError(f"Kafka was not ready within {START_SECONDS:.0f} s", f"its data: {self._dir}{where}")

    def _tail(self) -> str:
        if self._output is None:
            return "its log is above"
        with self._output.open("rb") as file:
            file.seek(max(0, self._output.stat().st_size - LOG_TAIL))
            return last_line(file.read().decode(errors="replace"))


def prepare(cache_dir: Path, *, mirror: str | None = None) -> tuple[list[str], str]:
    """Return Java with the broker's flags, and the class path. What is missing in the cache is downloaded and made.

    Raises:
        UsageError: the extra `embedded` is not installed, or the cache cannot be written.
        UnreachableError: a jar could not be downloaded.
        UnfitError: a downloaded jar does not match the lock.

    """
    command = [str(jars.java()), *JVM]
    paths = jars.resolve(cache_dir, mirror=mirror)
    class_path = os.pathsep.join(map(str, paths))
    return [*command, *class_cache.flags(paths[0].parent, command, class_path)], class_path


def usable_port(data_dir: Path) -> int:
    """Return the port of the last start if it is free, else a free one."""
    last = _last_ports(data_dir).get("port", 0)
    return last if last and tcp_ports.is_free(last, HOST) else tcp_ports.pick()


def _last_ports(data_dir: Path) -> dict[str, int]:
    try:
        last = json.loads((data_dir / PORTS_FILE).read_text())
        return {name: int(last[name]) for name in ("port", "controller_port")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
