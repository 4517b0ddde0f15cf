"""The asynchronous spool: every call runs in the one thread that owns the SQLite files (`files`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from tallystream.streams.gateway.errors import SpoolFullError
from tallystream.streams.gateway.message import Message, Place
from tallystream.streams.gateway.spool.file import ActivityRow, Held, Level, SpoolFile
from tallystream.streams.gateway.spool.files import Owner, SpoolFiles, Surroundings
from tallystream.streams.service.clock import Clock

T = TypeVar("T")


class RowId(NamedTuple):
    """A row of one of the files; `file` is the number of the open file, which is never reused."""

    file: int
    id: int


class Lane(NamedTuple):
    """The rows of one file for one partition."""

    file: int
    place: Place


class SpooledRow(NamedTuple):
    """A spooled message and the id that deletes it."""

    id: RowId
    message: Message


class HeldRow(NamedTuple):
    """A request in quarantine and the file that holds it."""

    file: int
    request: Held


class Spool:
    """Owns the spool files of one gateway. Create it with `Spool.open`, `close` it at the end.

    Methods raise SpoolWriteError when SQLite fails, `put` and `hold` also SpoolFullError: then the call has not stored
    anything.
    """

    def __init__(self, files: SpoolFiles, clock: Clock, max_bytes: int, quarantine_max_bytes: int) -> None:
        self._files = files
        self._clock = clock
        self._max_bytes = max_bytes
        self._quarantine_max_bytes = quarantine_max_bytes
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self.filled = asyncio.Event()
        """Set whenever messages may be waiting to be drained."""
        self.emptied = asyncio.Event()
        """Set while the spool is empty."""

    @classmethod
    async def open(
        cls,
        directory: Path,
        owner: Owner,
        *,
        max_bytes: int,
        quarantine_max_bytes: int,
        clock: Clock,
        salvaged: Callable[[int], None] = lambda _: None,
    ) -> Spool:
        """Open an empty file to write, and the other files of this deployment to drain.

        This never fails: if none of the files can be written, `writable` is false and every `put` raises
        SpoolWriteError until `look_around` finds one.
        """
        files = SpoolFiles(
            directory,
            owner,
            clock,
            max_bytes=max_bytes,
            quarantine_max_bytes=quarantine_max_bytes,
            salvaged=salvaged,
        )
        spool = cls(files, clock, max_bytes, quarantine_max_bytes)
        await spool.look_around()
        await spool._run(files.inherit)
        return spool

    # -- what it holds

    @property
    def path(self) -> Path:
        """Return the SQLite file that is written, or the directory without one."""
        files = self._files
        return files.open[files.own].slot.path if files.own is not None else files.directory

    @property
    def writable(self) -> bool:
        """Return whether a file can be written."""
        return self._files.own is not None

    @property
    def level(self) -> Level:
        """Return the number of waiting messages in all files, as of the last finished call."""
        return self._files.level

    @property
    def quarantine_level(self) -> Level:
        """Return how many requests are in quarantine."""
        return self._files.quarantine_level

    @property
    def surroundings(self) -> Surroundings:
        """Return the other files in the directory, as of the last look."""
        return self._files.surroundings

    def lanes(self) -> list[Lane]:
        """Return the rows that may be drained, by file and partition."""
        return [
            Lane(number, place)
            for number, one in list(self._files.open.items())
            for place in list(one.file.places)
            if place.topic in self._files.owner.topics
        ]

    # -- writing

    async def put(self, messages: Sequence[Message]) -> list[RowId]:
        """Store the messages, fsynced, in one transaction; return their ids."""
        at = self._clock.now_ns()

        def call(number: int, file: SpoolFile) -> list[RowId]:
            if self.level.bytes + sum(message.size for message in messages) > self._max_bytes:
                raise SpoolFullError(f"the spool holds {self.level.bytes} of {self._max_bytes} bytes")
            return [RowId(number, row) for row in file.put(messages, at)]

        ids = await self._run(partial(self._files.write, call))
        self._signal()
        return ids

    async def hold(self, ingest_sha256: str, provider: str, bearer_sha256: str | None, payload: bytes) -> None:
        """Store a request in quarantine, fsynced."""
        held = Held(0, self._clock.now_ns(), ingest_sha256, provider, bearer_sha256, payload)

        def call(_: int, file: SpoolFile) -> None:
            if (size := self.quarantine_level.bytes) + len(payload) > self._quarantine_max_bytes:
                raise SpoolFullError(f"the quarantine holds {size} of {self._quarantine_max_bytes} bytes")
            file.hold(held)

        await self._run(partial(self._files.write, call))

    async def save_activity(self, rows: Sequence[ActivityRow]) -> None:
        """Save absolute activity counts."""
        await self._run(partial(self._files.write, lambda _, file: file.save_activity(rows)))

    async def load_activity(self) -> list[ActivityRow]:
        """Return the last saved activity counts; empty without a file."""
        return await self._run(
            lambda: self._files.open[self._files.own].file.load_activity() if self._files.own is not None else []
        )

    async def meta(self, name: str, default: str) -> str:
        """Return a value remembered with this spool, remembering `default` first when there is none."""

        def call() -> str:
            if self._files.own is None:
                return default
            return self._files.open[self._files.own].file.meta(name, default) or default

        return await self._run(call)

    # -- draining

    async def read(self, lane: Lane, *, max_bytes: int, limit: int, after: int = 0) -> list[SpooledRow]:
        """Return the oldest messages of a lane after an id; none when its file has been given up."""

        def call() -> list[SpooledRow]:
            one = self._files.open.get(lane.file)
            if one is None:
                return []
            found = self._files.guarded(
                lane.file, lambda: one.file.read(lane.place, max_bytes=max_bytes, limit=limit, after=after)
            )
            return [SpooledRow(RowId(lane.file, row.id), row.message) for row in found]

        return await self._run(call)

    async def delete(self, ids: Iterable[RowId]) -> None:
        """Delete what Kafka has acknowledged. A file that is empty then, and not the one written, goes."""
        by_file: dict[int, list[int]] = {}
        for row in ids:
            by_file.setdefault(row.file, []).append(row.id)

        def call() -> None:
            for number, rows in by_file.items():
                if (one := self._files.open.get(number)) is not None:
                    self._files.guarded(number, partial(one.file.delete, rows))
                    self._files.finish(number)

        await self._run(call)
        self._signal()

    # -- quarantine

    async def held(self, limit: int = 256) -> list[HeldRow]:
        """Return the oldest requests in quarantine, file by file."""

        def call() -> list[HeldRow]:
            found: list[HeldRow] = []
            for number, one in list(self._files.open.items()):
                if one.file.quarantine_level.rows and len(found) < limit:
                    rows = self._files.guarded(number, partial(one.file.held, limit - len(found)))
                    found += [HeldRow(number, row) for row in rows]
            return found

        return await self._run(call)

    async def judge(self, row: HeldRow, messages: Sequence[Message]) -> None:
        """Replace a request in quarantine by the messages it became."""
        at = self._clock.now_ns()

        def call() -> None:
            if (one := self._files.open.get(row.file)) is not None:
                self._files.guarded(row.file, lambda: one.file.judge(row.request, messages, at))
                self._files.finish(row.file)

        await self._run(call)
        self._signal()

    # -- whose files these are

    async def claim(self, cluster_id: str) -> bool:
        """Say which cluster this is, now that Kafka has answered; return whether counts kept here are another's."""
        anew = await self._run(lambda: self._files.claim(cluster_id))
        self._signal()
        return anew

    async def look_around(self) -> None:
        """Open what can be opened now, count the rest. Errors are logged and tried again at the next call."""
        await self._run(self._files.look_around)
        self._signal()

    async def close(self) -> None:
        """Finish pending work, close the files and free the slots. Empty files keep the ids and counts."""
        await self._run(self._files.close)
        self._executor.shutdown()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _signal(self) -> None:
        if self.lanes():
            self.filled.set()
            self.emptied.clear()
        else:
            self.filled.clear()
            self.emptied.set()
