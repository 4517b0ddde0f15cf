"""Only jars that match the lock are used: downloads from a Maven repository on loopback."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest

from tallystream.schemas.errors import UnfitError, UnreachableError, UsageError
from tallystream.streams.embedded import jars
from tallystream.streams.embedded.jars import Jar, Lock, committed_lock, resolve

CONTENTS = {f"org.example:thing-{n}:1.{n}": bytes([n]) * (1000 + n) for n in range(6)}


class Repository:
    """A Maven repository that counts requests. `broken` paths have wrong content, `absent` ones get a 404."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.files = {
            f"/org/example/{a}/{v}/{a}-{v}.jar": content
            for (_, a, v), content in ((c.split(":"), content) for c, content in CONTENTS.items())
        }
        self.failures = 0
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = repository.files.get(self.path)
                if content is not None:
                    repository.asked.append(self.path)
                if content is None or repository.failures > 0:
                    repository.failures -= content is not None
                    self.send_error(404 if content is None else 503)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository() as repository:
        yield repository


@pytest.fixture
def lock() -> Lock:
    return Lock("0.0", tuple(Jar(c, len(b), hashlib.sha256(b).hexdigest()) for c, b in CONTENTS.items()))


def test_jars_are_downloaded_once_and_verified(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    paths = resolve(tmp_path, mirror=repository.url, lock=lock)
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    asked = len(repository.asked)
    assert asked == len(CONTENTS)
    assert resolve(tmp_path, mirror=repository.url, lock=lock) == paths
    assert len(repository.asked) == asked
    assert sorted(p.name for p in paths[0].parent.iterdir()) == sorted([".lock", *(p.name for p in paths)])


def test_jar_with_a_wrong_hash_is_not_used(
    repository: Repository, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "ATTEMPTS", 2)
    path = next(iter(repository.files))
    repository.files[path] = b"x" * len(repository.files[path])
    with pytest.raises(UnfitError, match="does not match the lock"):
        resolve(tmp_path, mirror=repository.url, lock=lock)
    assert not any(p.name == Path(path).name for p in tmp_path.rglob("*.jar"))


def test_damaged_jar_cache_is_repaired(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    paths = resolve(tmp_path, mirror=repository.url, lock=lock)
    paths[0].write_bytes(b"cut")
    paths[1].unlink()
    asked = len(repository.asked)
    resolve(tmp_path, mirror=repository.url, lock=lock)
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert len(repository.asked) == asked + 2


def test_transient_download_errors_are_retried(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    repository.failures = 2
    assert len(resolve(tmp_path, mirror=repository.url, lock=lock)) == len(CONTENTS)


def test_unavailable_download_is_reported_clearly(
    repository: Repository, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "ATTEMPTS", 1)
    repository.files.popitem()
    with pytest.raises(UnreachableError, match="could not be downloaded") as caught:
        resolve(tmp_path, mirror=repository.url, lock=lock)
    assert "TALLYSTREAM_MAVEN_MIRROR" in caught.value.hint
    assert not list(tmp_path.rglob(".staging"))


def test_concurrent_processes_download_each_jar_once(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: resolve(tmp_path, mirror=repository.url, lock=lock), range(4)))
    assert len(set(results)) == 1
    assert sorted(repository.asked) == sorted(repository.files)


def test_unwritable_cache_is_reported_clearly(lock: Lock, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path / "file", mirror="http://127.0.0.1:9", lock=lock)
    assert "TALLYSTREAM_CACHE_DIR" in caught.value.hint


def test_committed_jar_lock_is_complete() -> None:
    lock = committed_lock()
    names = [jar.file_name for jar in lock.jars]
    assert len(names) == len(set(names))
    assert f"kafka_2.13-{lock.kafka}.jar" in names
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in lock.jars)
