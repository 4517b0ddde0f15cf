"""The newest records by day, the published rows, and the rows to be published. Pure.

A row's version is `[generation, offset]`, where the offset is that of its day's newest record. An agent that has read
past the records of a published row finds the same offset or a higher one, because `openai.records` keeps the newest
record of every bucket. So a lower one means that the topic was recreated or truncated, and readers, which keep the
highest version, would keep the old row forever. The row is then published in the next generation. All agents that read
both topics compute the same version.

Only an agent that has just read everything from the beginning may conclude that. Any other may be wrong itself, because
it may have continued in the new topic at the old position: that raises TopicRecreatedError.

Nor may the reader have been overtaken by compaction: the record that a row was made of may be removed before it is
read, in favour of one behind the end that the reader was told. When `missing_records` says so, the end is asked for
again. Compaction never removes the newest record of a key, so whoever stands at an end asked for just now has read that
one: if its offset is lower than the row's version, the topic is another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from tallystream.agents.openai_days.rows import (
    COMPLETIONS,
    MODEL_USAGE,
    Lines,
    Said,
    add_known,
    as_row,
    concerns,
    content,
    day_of,
    day_rows,
)
from tallystream.schemas import keys
from tallystream.schemas.openai import CURRENT, BilledDay, OpenAIRecord
from tallystream.streams.kafka.errors import TopicRecreatedError

SILENT = timedelta(days=2)
"""A resource without a response for so long, while others responded, counts as no longer polled. Each new day is a
separate record, so an active resource is never silent for longer than a day."""


_UNKNOWN = datetime.min.replace(tzinfo=UTC)


class UnusableRecord(NamedTuple):
    """A record that cannot be used."""

    key: bytes
    resource: str
    day: str
    polled_at: datetime
    detail: str


class Days:
    """Takes records and published rows as they are read, and returns changed rows."""

    def __init__(self) -> None:
        self._records: dict[str, dict[bytes, Lines]] = {}
        self._offsets: dict[str, int] = {}
        """By day, the offset of its newest record, valid or not, which is the version of its rows."""
        self._rows: dict[bytes, bytes] = {}
        """Content of the newest version in `openai.days`, by key."""
        self._versions: dict[bytes, list[int]] = {}
        self._values: dict[bytes, bytes] = {}
        """The newest version in `openai.days` itself, by key: used when a resource's records are invalid or missing."""
        self._problems: dict[bytes, UnusableRecord] = {}
        """By key of a record, why it cannot be used."""
        self._asked: dict[str, tuple[str, datetime]] = {}
        """First day and newest poll of each resource of MODEL_USAGE."""
        self._held: set[str] = set()
        """Days that wait for a resource."""
        self._places: dict[str, set[bytes]] = {}
        self._changed: set[str] = set()
        self._fresh = True
        """Whether `take` has not been called yet, so that everything was read without interruption."""

    def published(self, key: bytes, value: bytes) -> None:
        """Add a row of `openai.days`, in the topic's order.

        A row that follows a newer version of itself comes from an agent that was suspended: compaction would keep it,
        so the newer one is published again. A row that differs from ours is examined by the next `take`.

        Raises:
            TopicRecreatedError: another agent has found that the records' topic was recreated, which we have missed.
            ValueError: this is not a row, or not the row of its key; nothing is changed.

        """
        if BilledDay.model_validate_json(value).key != key:
            raise ValueError("not the key of this row")
        row = orjson.loads(value)
        day, version = row["day"], row["version"]
        self._places.setdefault(day, set()).add(key)
        known, says = self._versions.get(key), content(row)
        if known is not None and version < known:
            self._rows.pop(key, None)
            self._changed.add(day)
            return
        if not self._fresh:
            if version[0] > (0 if known is None else known[0]):
                raise TopicRecreatedError(f"generation {version[0]} of {key.decode(errors='replace')}")
            if self._rows.get(key) != says:
                self._changed.add(day)
        self._rows[key], self._versions[key], self._values[key] = says, version, value

    def removed(self, key: bytes) -> None:
        """Note that a row was removed by a tombstone; it is published again."""
        if key in self._rows:
            del self._rows[key]
            self._changed.add(keys.split(key)[0])

    def passed(self, key: bytes, offset: int) -> None:
        """Note that a record of its key's day was read, even if this version cannot decode it."""
        if (named := _bucket_of(key)) is not None:
            self._pass(named[1], offset)

    def record(self, key: bytes, offset: int, record: OpenAIRecord) -> None:
        """Add a record; one that was polled before the known one is ignored.

        A record with invalid rows is ignored as well, so the day keeps the previous figures of this resource. It is
        reported as a problem until a valid one follows.
        """
        day = day_of(record)
        if day is None or not concerns(record.resource):
            return
        self._pass(day, offset)
        have, problem = self._records.setdefault(day, {}).get(key), self._problems.get(key)
        if (have and record.polled_at < have.polled_at) or (problem and record.polled_at < problem.polled_at):
            return
        self._changed.add(day)
        if record.resource in MODEL_USAGE:
            first, newest = self._asked.get(record.resource, (day, record.polled_at))
            self._asked[record.resource] = min(first, day), max(newest, record.polled_at)
        try:
            self._records[day][key] = Lines.of(record)
        except ValueError as exc:
            self._problems[key] = UnusableRecord(key, record.resource, day, record.polled_at, str(exc))
        else:
            self._problems.pop(key, None)

    def unreadable(self, key: bytes, why: str) -> None:
        """Add a record that this version cannot decode: its day keeps the previous figures of the key's resource."""
        if (named := _bucket_of(key)) is not None and concerns(named[0]):
            resource, day = named
            self._records.setdefault(day, {})
            self._problems[key] = UnusableRecord(key, resource, day, _UNKNOWN, why)
            self._changed.add(day)

    @property
    def problems(self) -> list[UnusableRecord]:
        """Return the invalid records, whose days keep their previous figures."""
        return list(self._problems.values())

    @property
    def held(self) -> set[str]:
        """Return the days that keep their previous figures because not all their resources have answered."""
        return set(self._held)

    @property
    def missing_records(self) -> bool:
        """Tell whether a row was published for a newer record of its day than any that was read, so that `take` may
        conclude that the topic was recreated: it must first have been read up to an end fetched after that.
        """
        return self._fresh and any(
            self._versions[key][1] > self._offsets.get(day, -1)
            for day in self._records
            for key in self._places.get(day, ())
            if key in self._versions
        )

    def take(self) -> list[tuple[bytes, bytes]]:
        """Return the rows that changed since the last time; both topics must have been read at least up to the ends
        they had after the last row was taken in, and after the last look at `missing_records` if there are any.

        A row without figures any more is published empty, because readers keep the newest version of a key, and a
        tombstone would leave them with the old one. Days without any record are unchanged.

        Raises:
            TopicRecreatedError: a published row is of a record that was not seen here, or the same records
                gave another row.

        """
        out: list[tuple[bytes, bytes]] = []
        self._changed |= self._held
        for day in sorted(self._changed & self._records.keys()):
            rows = dict(self._day(day))
            for key in self._places.get(day, set()) - rows.keys():
                _, model, project = keys.split(key)
                rows[key] = as_row(day, model or None, project or None, Said(), {})
            for key, row in rows.items():
                says = content(row)
                if self._rows.get(key) != says:
                    version = self._version(key, self._offsets[day])
                    value = orjson.dumps({**row, "version": version})
                    self._rows[key], self._versions[key], self._values[key] = says, version, value
                    self._places.setdefault(day, set()).add(key)
                    out.append((key, value))
        self._changed.clear()
        self._fresh = False
        return out

    def _version(self, key: bytes, offset: int) -> list[int]:
        generation, last = self._versions.get(key, (0, -1))
        overtaken = key not in self._rows
        if offset > last or (offset == last and (self._fresh or overtaken)):
            return [generation, offset]
        if not self._fresh:
            raise TopicRecreatedError(
                f"{key.decode(errors='replace')} was published for offset {last}, its day ends at {offset}"
            )
        return [generation + 1, offset]

    def _pass(self, day: str, offset: int) -> None:
        self._offsets[day] = max(self._offsets.get(day, 0), offset)

    def _day(self, day: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
        held = self._unheard(day)
        rows = day_rows(one for one in self._records[day].values() if one.resource not in held)
        if held:
            for key in self._places.get(day, ()):
                if key in self._values:
                    add_known(rows, orjson.loads(self._values[key]), held)
        for (model, project), (said, polled) in rows.items():
            yield keys.join(day, model or "", project or ""), as_row(day, model, project, said, polled)

    def _unheard(self, day: str) -> set[str]:
        """Return the resources that cannot speak for a day: what was published in their words stays.

        That is one whose only record cannot be used; and all of MODEL_USAGE while one of them is missing, for their
        counts are added up: the completions always, another one when it has answered for this day or an earlier one
        and has not been silent for long. What is not polled any more must not hold up the days to come.
        """
        spoken = {one.resource for one in self._records[day].values()}
        unheard = {problem.resource for problem in self._problems.values() if problem.day == day} - spoken
        self._held.discard(day)
        if spoken & MODEL_USAGE or unheard & MODEL_USAGE:
            newest = max((polled for _, polled in self._asked.values()), default=_UNKNOWN)
            wanted = {COMPLETIONS} | {
                resource
                for resource, (first, polled) in self._asked.items()
                if first <= day and newest - polled <= SILENT
            }
            if wanted - spoken:
                self._held.add(day)
                unheard |= MODEL_USAGE
        return unheard


def _bucket_of(key: bytes) -> tuple[str, str] | None:
    """Return the resource and the day that a record's key names; None for a resource without time, and for bytes that
    are not a record's key.
    """
    try:
        resource, _, bucket = keys.split(key)
    except ValueError:
        return None
    return None if bucket == CURRENT else (resource, bucket[:10])
