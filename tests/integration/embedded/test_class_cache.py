"""Kafka's classes are prepared once; without them, or with damaged ones, the broker starts as well."""

from __future__ import annotations

from pathlib import Path

from tallystream.streams.embedded import jars
from tallystream.streams.embedded.broker import EmbeddedKafka


def uses(broker: EmbeddedKafka, cache: Path) -> bool:
    return str(cache) in Path(f"/proc/{broker.pid}/maps").read_text()


def test_classes_are_prepared_once_and_damage_only_makes_starts_slower(tmp_path: Path) -> None:
    """The folder has jars of its own, so that it has no cache yet."""
    cache_dir, data_dir = tmp_path / "cache", tmp_path / "data"
    folder = cache_dir / jars.committed_lock().folder
    folder.mkdir(parents=True)
    for jar in jars.resolve(jars.default_cache_dir()):
        (folder / jar.name).symlink_to(jar)
    with EmbeddedKafka(data_dir, cache_dir=cache_dir) as broker:
        (cache,) = folder.glob("*.aot")
        assert uses(broker, cache)
    assert not (folder / ".training").exists()
    written = cache.stat().st_mtime_ns
    with EmbeddedKafka(data_dir, cache_dir=cache_dir) as broker:
        assert cache.stat().st_mtime_ns == written
    half = cache.stat().st_size // 2
    with cache.open("r+b") as file:  # as after a power cut
        file.seek(half)
        file.write(bytes(half))
    with EmbeddedKafka(data_dir, cache_dir=cache_dir) as broker:
        assert not uses(broker, cache)
    cache.unlink()
    (folder / ".classes.lock").unlink()
    (folder / ".classes.lock").mkdir()  # cannot be locked, as in a folder that this user may not write
    with EmbeddedKafka(data_dir, cache_dir=cache_dir):
        assert not list(folder.glob("*.aot"))
