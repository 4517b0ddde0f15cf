"""The spool files of one gateway, with blocking calls: which one is written, which are drained, which are ignored.

A gateway writes one file, which is empty when it begins, and drains the files that gateways of the same deployment left
in the directory, including its own previous run. A file that cannot be opened or written does not stop the gateway: it
continues in another file and retries periodically. Only a file that SQLite itself reports as damaged is set aside, and
its readable rows are copied. Files of other deployments are only counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from tallystream.streams.gateway.errors import NotDurableError, SpoolCorruptError, SpoolWriteError
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.spool.file import Level, SpoolFile
from tallystream.streams.gateway.spool.salvage import salvage
from tallystream.streams.gateway.spool.slots import MAX_SLOTS, Slot, damaged, slot_path, spools
from tallystream.streams.service.clock import Clock

T = TypeVar("T")
PATIENCE = 0.5
"""Seconds that a call waits for a file locked by another process. It is short, because all other calls wait
meanwhile."""
OTHER_FILE_EVERY = 1.0
"""Seconds between two attempts at a new file while none can be written."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Owner:
    """Identifies the rows that a gateway may send: `topics` are the full names of the topics it writes."""

    prefix: str
    topics: frozenset[str]
    partition_of: Callable[[Message], int] = lambda _: -1
    last_met: str = ""
    """The cluster for which messages spooled before Kafka answers are presumably meant."""
    addresses: frozenset[str] = frozenset()
    """Where that cluster is to be reached. They name it in the spool until its id is known."""


@dataclass(frozen=True)
class Surroundings:
    """Other files in the directory, as of the last look."""

    unopened: int = 0
    """Files of this deployment that cannot be opened now."""
    damaged: int = 0
    """Files set aside because SQLite reports them as damaged, until they are recovered."""
    foreign_files: int = 0
    foreign_messages: int = 0
    """Messages of other deployments, which are never sent and never deleted."""


@dataclass(frozen=True)
class OpenFile:
    """A file that we own, with its lock."""

    slot: Slot
    file: SpoolFile
    legacy: bool
    """Written by version 0.1: only the topics of its rows show their owner."""
    was: str
    """The cluster it belonged to when it was opened."""
    unmet: bool
    """All its rows were written by this run before any cluster was reached, so they go to the first cluster reached."""


class SpoolFiles:
    """All open spool files; used by one thread. `open` has the files by number; a number is never reused.

    `salvaged` is called with the number of rows copied from each damaged file.
    """

    def __init__(
        self,
        directory: Path,
        owner: Owner,
        clock: Clock,
        *,
        max_bytes: int,
        quarantine_max_bytes: int,
        salvaged: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.owner = owner
        self._clock = clock
        self._max_bytes = max_bytes
        self._quarantine_max_bytes = quarantine_max_bytes
        self._cluster_id = ""
        self._numbered = 0
        self._why_none = ""
        self._no_other_before = float("-inf")
        self.open: dict[int, OpenFile] = {}
        self.own: int | None = None
        """The number of the file that is written; None without one."""
        self.surroundings = Surroundings()
        self._salvaged = salvaged

    @property
    def level(self) -> Level:
        """Return the number of waiting messages in all files."""
        return _sum([one.file.level for one in list(self.open.values())])

    @property
    def quarantine_level(self) -> Level:
        """Return how many requests are in quarantine in all files."""
        return _sum([one.file.quarantine_level for one in list(self.open.values())])

    def write(self, call: Callable[[int, SpoolFile], T]) -> T:
        """Write to our file; when that fails for any reason but its limit, switch to another file.

        Raises:
            SpoolFullError: the limit is reached.
            SpoolWriteError: none of the files can be written.

        """
        problem = SpoolWriteError(self._why_none or "no spool can be opened")
        if (first := self.own) is not None:
            try:
                return self.guarded(first, partial(call, first, self.open[first].file))
            except SpoolWriteError as exc:
                problem = exc
        if self._clock.monotonic() < self._no_other_before:
            raise problem
        number = self._open_empty() if self.own in (None, first) else self.own
        if number is None:
            raise problem
        try:
            result = call(number, self.open[number].file)
        except NotDurableError:
            # The new file fails as well (the disk is full): remove it, so that not every attempt leaves a file behind.
            self._no_other_before = self._clock.monotonic() + OTHER_FILE_EVERY
            self._drop(number)
            raise
        if first is not None:
            log.warning("spool_changed", path=str(self.open[number].slot.path), why=str(problem))
        self.own = number
        return result

    def _drop(self, number: int) -> None:
        one = self.open[number]
        if one.file.empty:
            del self.open[number]
            self.own = None if self.own == number else self.own
            one.file.close()
            one.slot.remove()

    def guarded(self, number: int, call: Callable[[], T]) -> T:
        """Call a function with a file; a file that SQLite reports as damaged is set aside and salvaged."""
        try:
            return call()
        except SpoolCorruptError as exc:
            one = self.open.pop(number)
            if self.own == number:
                self.own = None
            one.file.close()
            self._set_aside(one.slot, str(exc))
            one.slot.release()
            raise

    def _set_aside(self, slot: Slot, why: str) -> None:
        """Rename a damaged file and copy its readable rows into ours."""
        try:
            aside = slot.set_aside()
        except OSError as exc:
            log.error("spool_not_set_aside", path=str(slot.path), error=str(exc))  # noqa: TRY400
            return
        found = salvage(aside)
        rows = len(found.messages) + len(found.held)
        log.error("spool_damaged", path=str(slot.path), set_aside=aside.name, why=why, salvaged=rows)
        if self.own is None:
            self.own = self._open_empty()
        if self.own is None or not rows:
            return
        try:
            self.open[self.own].file.restore(found.messages, found.held)
        except SpoolWriteError as exc:
            log.error("spool_not_salvaged", set_aside=aside.name, error=str(exc))  # noqa: TRY400
        else:
            self._salvaged(rows)

    def claim(self, cluster_id: str) -> bool:
        """Set the cluster's id, now that Kafka has answered; return whether the activity counts of our file are void.

        Files of another cluster are closed: they wait for their own cluster, or for `spool recover`.
        """
        if cluster_id == self._cluster_id:
            return False
        self._cluster_id = cluster_id
        anew = False
        for number, one in list(self.open.items()):
            if one.unmet or not (one.file.cluster_id or one.legacy):
                anew = anew or (number == self.own and one.was not in ("", cluster_id))
                self.open[number] = replace(one, unmet=False)
                try:
                    one.file.belong(self.owner.prefix, cluster_id)
                except SpoolWriteError as exc:
                    log.warning("spool_not_claimed", path=str(one.slot.path), error=str(exc))
            elif one.file.cluster_id not in ("", cluster_id):
                anew = anew or number == self.own
                self._give_up(number)
        self.look_around()
        return anew

    def inherit(self) -> None:
        """Take over the name of the gateway whose spool is being drained, which is this one before its restart."""
        if self.own is None:
            return
        own = self.open[self.own]
        for number, one in list(self.open.items()):
            try:
                if number != self.own and own.file.inherit(one.file):
                    self.open[self.own] = replace(own, was=one.was)
                    return
            except SpoolWriteError as exc:
                log.warning("activity_not_inherited", path=str(one.slot.path), error=str(exc))

    def close(self) -> None:
        """Close the files and free the slots. An empty file is kept, so that ids and counts continue."""
        for one in self.open.values():
            one.file.close()
            one.slot.release()

    def look_around(self) -> None:
        """Open the files that can be opened now and count the others. Errors are logged and retried at the next
        call.
        """
        if self.own is None:
            self.own = self._open_empty()
            if self.own is None:
                log.error("spool_unavailable", directory=str(self.directory), why=self._why_none)
        unopened = foreign = messages = 0
        mine = {one.slot.path for one in self.open.values()}
        for path in spools(self.directory):
            if path in mine:
                continue
            try:
                slot = Slot.take(path)
            except OSError:
                unopened += self._ours_by_name(path)
                continue
            if slot is None:
                continue  # a live gateway has it
            file = self._opened(slot)
            if file is None:
                unopened += self._ours_by_name(path) and path.exists()
                slot.release()
            elif not self._adopt(slot, file):
                foreign += 1
                messages += file.level.rows + file.quarantine_level.rows
        self.surroundings = Surroundings(unopened, len(damaged(self.directory)), foreign, messages)

    def _opened(self, slot: Slot) -> SpoolFile | None:
        """Open a file; None when that fails. A damaged file of ours is set aside."""
        limits = {"max_bytes": self._max_bytes, "quarantine_max_bytes": self._quarantine_max_bytes}
        try:
            return SpoolFile(slot.path, **limits, partition_of=self.owner.partition_of, patience=PATIENCE)
        except SpoolCorruptError as exc:
            if self._ours_by_name(slot.path):
                self._set_aside(slot, str(exc))
        except SpoolWriteError as exc:
            log.warning("spool_not_opened", path=str(slot.path), error=str(exc), next="it is tried again")
        return None

    def _adopt(self, slot: Slot, file: SpoolFile) -> bool:
        """Adopt an unlocked file if it belongs to this deployment; return whether it does."""
        ours = self._is_ours(file)
        if ours and not file.empty:
            number = self._register(slot, file, file.cluster_id)
            log.info("spool_adopted", path=str(slot.path), rows=file.level.rows, held=file.quarantine_level.rows)
            self.finish(number)
            return True
        file.close()
        if ours:
            slot.remove()
        else:
            slot.release()
        return ours

    def _is_ours(self, file: SpoolFile) -> bool:
        if not file.prefix:  # of version 0.1
            return file.empty or self._for_us(file)
        if file.prefix != self.owner.prefix:
            return False
        if file.cluster_id:
            return not self._cluster_id or file.cluster_id == self._cluster_id
        # It was meant for a cluster that its gateway did not reach, which may be another than ours.
        return not file.addresses or not file.addresses.isdisjoint(self.owner.addresses)

    def _for_us(self, file: SpoolFile) -> bool:
        return any(place.topic in self.owner.topics for place in file.places)

    def _ours_by_name(self, path: Path) -> bool:
        owner, _, number = path.stem.removeprefix("spool-").rpartition("-")
        return number.isdigit() and owner in ("", self.owner.prefix)

    def _register(self, slot: Slot, file: SpoolFile, was: str, *, unmet: bool = False) -> int:
        self._numbered += 1
        self.open[self._numbered] = OpenFile(slot, file, not file.prefix, was, unmet)
        return self._numbered

    def _open_empty(self) -> int | None:
        """Open the lowest free slot whose file is empty or new; files with rows found on the way are drained."""
        held = {one.slot.path for one in self.open.values()}
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for number in range(MAX_SLOTS):
                path = slot_path(self.directory, self.owner.prefix, number)
                if path in held:
                    continue
                slot = Slot.take(path)
                if slot is None:
                    continue
                if (opened := self._empty_in(slot)) is not None:
                    return opened
        except OSError as exc:
            self._why_none = f"the spool directory {self.directory} cannot be used: {exc}"
            return None
        self._why_none = self._why_none or f"all {MAX_SLOTS} spools of {self.directory} are in use"
        return None

    def _empty_in(self, slot: Slot) -> int | None:
        existed = slot.path.exists()
        file = self._opened(slot)
        if file is None and not slot.path.exists():
            file = self._opened(slot)  # the damaged one has been set aside
        if file is None:
            if not existed:
                # A new file cannot be created here, so trying other slots would fail as well.
                slot.remove()
                raise OSError(f"new files cannot be created there ({slot.path.name})")
            slot.release()
            return None
        if file.empty:
            was = file.cluster_id
            try:
                known = self._cluster_id or self.owner.last_met
                file.belong(self.owner.prefix, known, () if known else self.owner.addresses)
            except SpoolWriteError as exc:
                self._why_none = str(exc)
                file.close()
                slot.release()
                return None
            return self._register(slot, file, was, unmet=not self._cluster_id)
        self._adopt(slot, file)
        return None

    def finish(self, number: int) -> None:
        """Close a file that is drained and not the one being written."""
        one = self.open[number]
        if number == self.own:
            return
        if one.file.empty:
            self.open.pop(number)
            one.file.close()
            one.slot.remove()
        elif one.legacy and not one.file.quarantine_level.rows and not self._for_us(one.file):
            self._give_up(number)

    def _give_up(self, number: int) -> None:
        one = self.open.pop(number)
        if self.own == number:
            self.own = None
        one.file.close()
        one.slot.release()
        log.warning(
            "spool_of_another_deployment", path=str(one.slot.path), rows=one.file.level.rows,
            next="it is kept and never sent; `tallystream spool list` shows it",
        )  # fmt: skip


def _sum(levels: Iterable[Level]) -> Level:
    rows = size = oldest = 0
    for level in levels:
        rows, size = rows + level.rows, size + level.bytes
        oldest = min(oldest or level.oldest_ns, level.oldest_ns or oldest)
    return Level(rows, size, oldest)
