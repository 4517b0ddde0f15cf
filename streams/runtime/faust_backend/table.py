"""The exact engine as a Faust table: translates Faust's callbacks into assignments and batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import faust
from faust.types import TP
from mode import Service
from typing_extensions import override

from tallystream.streams.runtime.engine import Engine
from tallystream.streams.runtime.faust_backend.app import App
from tallystream.streams.runtime.faust_backend.batches import MAX_LINE, BatchLine, BatchSchema
from tallystream.streams.runtime.faust_backend.host import FaustHost
from tallystream.streams.runtime.fold import Fold
from tallystream.streams.runtime.standby import Standby
from tallystream.streams.runtime.store import RowStore

ROCKSDB: Mapping[str, int] = {
    "block_cache_size": 32 << 20,
    "write_buffer_size": 16 << 20,
    "max_write_buffer_number": 2,
    "target_file_size_base": 32 << 20,
}
"""Limits of one partition's database; Faust's defaults (2 GiB of cache each) are meant for one database per machine."""


GONE_TICKS = 5
"""Seconds that a topic may be missing: a broker may learn of a topic a little later than another one."""


class FoldTable(faust.Table[bytes, bytes]):
    """Runs `fold` over the topic `source`; its changelog is Faust's `{app id}-{fold.name}-changelog`.

    With `standby` it also keeps copies of the partitions that other workers own. `engine` is a parameter so that tests
    can break a promise on purpose.

    Relies on Faust calling `on_recovery_completed`, `on_rebalance` and `on_stop` of a table (tables/recovery.py,
    tables/manager.py), on `Collection.data` being the store, and on a stream's `channel.queue` (streams.py,
    channels.py).
    """

    def __init__(
        self,
        app: App,
        fold: Fold,
        *,
        source: str,
        partitions: int,
        topic_ids: Mapping[str, str] | None = None,
        accept_loss: bool = False,
        standby: bool = False,
        engine: type[Engine] = Engine,
        **options: Any,
    ) -> None:
        options.setdefault("schema", BatchSchema())
        options.setdefault("options", dict(ROCKSDB) if app.conf.store.scheme == "exact-rocksdb" else None)
        super().__init__(app, name=fold.name, partitions=partitions, key_type=bytes, value_type=bytes, **options)
        self.app: App = app
        self.engine = engine(
            fold,
            FaustHost(app),
            cast(RowStore, self.data),
            source=source,
            changelog=self.changelog_topic_name,
            topic_ids=topic_ids,
            accept_loss=accept_loss,
        )
        self._gone = ""
        """The topic, source or changelog, without which partitions were assigned."""
        self._gone_for = 0
        self.standby = Standby(self.engine, partitions) if standby else None
        app.context.engines.append(self.engine)
        app.tables.add(self)
        app.agent(app.topic(source, schema=BatchSchema(), partitions=partitions), name=f"fold_{fold.name}")(self._agent)

    async def _agent(self, stream: Any) -> None:
        line, queue = BatchLine(), stream.channel.queue
        self.app.context.lines[self.engine.source] = lambda: queue.qsize() + line.size
        async for event in stream.noack().events():
            line.add(event.message.partition, event.value)
            if line.size < MAX_LINE and not queue.empty():
                continue
            try:
                for partition, records in line.take():
                    await self.engine.accept(partition, records)
            except Exception as exc:  # noqa: BLE001 - Faust would acknowledge the batch and continue
                self.app.die(exc)

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(1.0)
            if self._gone:
                self._gone_for += 1
                if self._gone_for >= GONE_TICKS:
                    self.app.die(f"{self._gone} does not exist any more: it was deleted while this worker ran")
            await self.engine.watch()

    @Service.task
    async def _look_for_late_rows(self) -> None:
        await self.engine.late_writes.run()

    @Service.task
    async def _copy_other_partitions(self) -> None:
        if self.standby is not None:
            await self.standby.run()

    # -- what Faust calls

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Recover. Afterwards Faust, whose own recovery did nothing, seeks and resumes. Heartbeats continue
        meanwhile.
        """
        partitions = sorted(tp.partition for tp in active_tps if tp.topic == self.changelog_topic_name)
        app, generation = self.app, self.app.consumer_generation_id
        self.engine.assign(set(partitions))
        await self.engine.recover(
            partitions, lambda: app.consumer_generation_id == generation and not app.rebalance_pending
        )
        await super().on_recovery_completed(active_tps, standby_tps)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Drop the in-memory state, and release the stores of revoked partitions."""
        self.engine.revoke_all()
        sources, logs = (
            {tp.partition for tp in assigned if tp.topic == topic}
            for topic in (self.engine.source, self.changelog_topic_name)
        )
        # Faust leaves out a topic that it does not know, and nothing would be counted, without a word.
        self._gone = "" if sources == logs else self.engine.source if logs - sources else self.changelog_topic_name
        self._gone_for = 0
        self.engine.assign(sources)
        for tp in revoked:
            if tp.topic == self.changelog_topic_name:
                self.engine.store.drop(tp.partition)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_stop(self) -> None:
        """Drop the in-memory state."""
        self.engine.revoke_all()
        await super().on_stop()

    def apply_changelog_batch(self, batch: Any) -> None:
        """Ignore changelog records from Faust, because we read them ourselves."""

    @override
    def on_key_set(self, key: Any, value: Any) -> None:
        """Refuse, because rows change only through the fold.

        Raises:
            TypeError: always.

        """
        raise TypeError(f"{self.name}: rows change only through fold")

    @override
    def on_key_del(self, key: Any) -> None:
        """Refuse, because rows change only through the fold.

        Raises:
            TypeError: always.

        """
        raise TypeError(f"{self.name}: rows change only through fold")
