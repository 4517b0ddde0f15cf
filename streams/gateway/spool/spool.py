"""The spool as the event loop sees it: every call runs in the one thread that owns the SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from tallystream.streams.gateway.errors import SpoolWriteError
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.spool.file import ActivityRow, Held, Level, Row, SpoolFile
from tallystream.streams.gateway.spool.slots import Slot
from tallystream.streams.service.clock import Clock

T = TypeVar("T")
log = structlog.get_logger()


class Spool:
    """Owns one slot of `directory`. Create it with `Spool.open`, `close` it at the end.

    Methods raise SpoolWriteError when SQLite fails, `put` and `hold` also SpoolFullError: nothing of that call is
    then stored.
    """

    def __init__(self, slot: Slot, file: SpoolFile, executor: ThreadPoolExecutor, clock: Clock) -> None:
        self._slot = slot
        self._file = file
        self._executor = executor
        self._clock = clock
        self._directory = slot.path.parent
        self.filled = asyncio.Event()
        """Set whenever messages may be waiting to be drained."""
        self.emptied = asyncio.Event()
        """Set while no message waits."""
        (self.filled if file.level.rows else self.emptied).set()

    @classmethod
    async def open(cls, directory: Path, *, max_bytes: int, quarantine_max_bytes: int, clock: Clock) -> Spool:
        """Take the lowest free slot. A file that SQLite cannot read is set aside, never deleted.

        Raises:
            UnfitError: the directory cannot be used.
            SpoolWriteError: not even a new file can be made.

        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="spool")

        def take() -> tuple[Slot, SpoolFile]:
            slot = Slot.take_lowest(directory)
            try:
                return slot, SpoolFile(slot.path, max_bytes=max_bytes, quarantine_max_bytes=quarantine_max_bytes)
            except SpoolWriteError as exc:
                aside = slot.set_aside(str(clock.now_ns()))
                log.error("spool_unreadable", path=str(slot.path), set_aside=str(aside), error=str(exc))  # noqa: TRY400
                return slot, SpoolFile(slot.path, max_bytes=max_bytes, quarantine_max_bytes=quarantine_max_bytes)

        slot, file = await asyncio.get_running_loop().run_in_executor(executor, take)
        return cls(slot, file, executor, clock)

    @property
    def path(self) -> Path:
        """Return the SQLite file."""
        return self._slot.path

    @property
    def level(self) -> Level:
        """Return how many messages wait, as of the last call that finished."""
        return self._file.level

    @property
    def quarantine_level(self) -> Level:
        """Return how many requests are in quarantine."""
        return self._file.quarantine_level

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _grown(self) -> None:
        self.filled.set()
        if self.level.rows:
            self.emptied.clear()

    async def meta(self, name: str, default: str) -> str:
        """Return a value remembered with this spool, remembering `default` first when there is none."""
        return await self._run(lambda: self._file.meta(name, default)) or default

    async def put(self, messages: Sequence[Message]) -> list[int]:
        """Store the messages, fsynced, in one transaction; return their ids."""
        at = self._clock.now_ns()
        ids = await self._run(lambda: self._file.put(messages, at))
        self._grown()
        return ids

    async def read(self, *, max_bytes: int, after: int = 0) -> list[Row]:
        """Return the oldest messages after an id; `filled` is clear when there are none."""
        self.filled.clear()
        rows = await self._run(lambda: self._file.read(max_bytes=max_bytes, after=after))
        if rows:
            self.filled.set()
        return rows

    async def delete(self, ids: Sequence[int]) -> None:
        """Delete what Kafka has acknowledged."""
        await self._run(lambda: self._file.delete(ids))
        if not self.level.rows:
            self.emptied.set()

    async def hold(self, ingest_sha256: str, provider: str, bearer_sha256: str | None, payload: bytes) -> None:
        """Store a request in quarantine, fsynced."""
        held = Held(0, self._clock.now_ns(), ingest_sha256, provider, bearer_sha256, payload)
        await self._run(lambda: self._file.hold(held))

    async def held(self, limit: int = 256) -> list[Held]:
        """Return the oldest requests in quarantine."""
        return await self._run(lambda: self._file.held(limit))

    async def judge(self, request: Held, messages: Sequence[Message]) -> None:
        """Replace a request in quarantine by the messages it became."""
        at = self._clock.now_ns()
        await self._run(lambda: self._file.judge(request, messages, at))
        self._grown()

    async def save_activity(self, rows: Sequence[ActivityRow]) -> None:
        """Remember absolute activity counts."""
        await self._run(lambda: self._file.save_activity(rows))

    async def load_activity(self) -> list[ActivityRow]:
        """Return the activity counts as last saved."""
        return await self._run(self._file.load_activity)

    async def adopt_abandoned(self) -> int:
        """Move what dead gateways left in the directory into this spool; return how many rows.

        In small steps, so that requests on their way to the spool wait for one step at most. Errors are logged and
        tried again at the next call: another spool's trouble is not ours.
        """
        moved = 0
        for slot in await self._run(lambda: list(Slot.abandoned(self._directory, self._slot))):
            rows = 0
            try:
                other = await self._run(partial(SpoolFile, slot.path, max_bytes=0, quarantine_max_bytes=0))
                try:
                    while step := await self._run(partial(self._file.adopt, other)):
                        rows += step
                        self._grown()
                finally:
                    await self._run(other.close)
            except SpoolWriteError as exc:
                log.error("spool_not_adopted", path=str(slot.path), rows=rows, error=str(exc))  # noqa: TRY400
                slot.release()
            else:
                slot.remove()
                log.info("spool_adopted", path=str(slot.path), rows=rows)
            moved += rows
        return moved

    async def close(self) -> None:
        """Finish what was asked for, close the file, free the slot. An empty spool keeps its file: ids go on."""
        await self._run(self._file.close)
        self._executor.shutdown()
        self._slot.release()
