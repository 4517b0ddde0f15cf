"""Kafka's own ConsumerGroupCommand, with which our lag is compared."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

from tallystream.streams.embedded.jars import Jar, Lock, default_cache_dir, java, resolve

LOCK = Path(__file__).with_name("kafka-tools.lock.toml")


class Described(NamedTuple):
    """ConsumerGroupCommand's report on one partition."""

    committed: int
    end: int
    lag: int


def class_path() -> str:
    """Return the class path of Kafka's tools, which are downloaded and verified once per machine."""
    document = tomllib.loads(LOCK.read_text())
    tools = Lock(document["kafka"], tuple(Jar(**jar) for jar in document["jars"]))
    cache = default_cache_dir()
    mirror = os.environ.get("TALLYSTREAM_MAVEN_MIRROR")
    return os.pathsep.join(map(str, (*resolve(cache, mirror=mirror), *resolve(cache, mirror=mirror, lock=tools))))


def describe_group(bootstrap: str, group: str) -> dict[tuple[str, int], Described]:
    """Return the group's partitions that have a committed offset, by topic and partition."""
    command = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    arguments = ["--bootstrap-server", bootstrap, "--describe", "--group", group, "--timeout", "30000"]
    done = subprocess.run(
        [str(java()), "-XX:TieredStopAtLevel=1", "-cp", class_path(), command, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for line in done.stdout.splitlines():
        name, topic, partition, committed, end, lag, *_ = [*line.split(), *[""] * 6]
        if name == group and committed.isdigit():
            found[topic, int(partition)] = Described(int(committed), int(end), int(lag))
    return found
