"""Every private name of faust and aiokafka that the runtime uses; these tests fail if a new version moves one."""

from __future__ import annotations

import inspect
from typing import Any

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher, group_coordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.sender import BaseHandler, Sender
from faust.app.base import App
from faust.stores.base import Store
from faust.stores.rocksdb import Store as RocksDBStore
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from tests.support.counting import CountsTable, EndedError

from tallystream.streams.runtime.faust_backend.stores import MemoryRows, RocksRows
from tallystream.streams.runtime.faust_backend.table_manager import PromptTableManager
from tallystream.streams.runtime.faust_backend.transport import Transport


def source(thing: Any) -> str:
    return inspect.getsource(thing)


CALLS = [
    # producer
    (driver.Producer._new_producer, "self._settings_extra()"),
    (driver.Producer.on_start, "self._new_producer()"),
    (driver.Producer._ensure_producer, "return self._producer"),
    (BaseHandler.do, "self._sender.client.send(node_id, req"),
    (aiokafka.AIOKafkaProducer.__init__, "self._sender = Sender(\n            self.client"),
    (aiokafka.AIOKafkaProducer.create_batch, "self._message_accumulator.create_builder"),
    (aiokafka.AIOKafkaProducer.send_batch, "self._message_accumulator.add_batch"),
    # one request at a time for a partition: tests/integration/kafka/test_new_topics.py
    (Sender._sender_routine, "self._muted_partitions.add(tp)"),
    # consumer thread
    (driver.AIOKafkaConsumerThread._create_consumer, "self._create_worker_consumer(transport)"),
    (driver.AIOKafkaConsumerThread.on_start, "await self._consumer.start()"),
    (driver.AIOKafkaConsumerThread.commit, "self._commit, offsets"),
    (driver.AIOKafkaConsumerThread._create_worker_consumer, "fetch_max_wait_ms=1500"),
    (aiokafka.AIOKafkaConsumer.__init__, "self._fetch_max_wait_ms = fetch_max_wait_ms"),
    (aiokafka.AIOKafkaConsumer.start, "fetch_max_wait_ms=self._fetch_max_wait_ms"),
    (aiokafka.AIOKafkaConsumer.__init__, "self._fetch_min_bytes = fetch_min_bytes"),
    (aiokafka.AIOKafkaConsumer.start, "fetch_min_bytes=self._fetch_min_bytes"),
    (aiokafka.AIOKafkaConsumer.start, "self._coordinator = GroupCoordinator("),
    (group_coordinator.GroupCoordinator._do_heartbeat, "HeartbeatRequest("),
    (group_coordinator.GroupCoordinator._do_heartbeat, "await self._send_req(request)"),
    (group_coordinator.CoordinatorGroupRebalance._send_sync_group_request, "self._coordinator._send_req(request)"),
    # light records
    (fetcher.Fetcher._proc_fetch_request, "self._records[tp] = FetchResult("),
    (fetcher.Fetcher._proc_fetch_request, "partition_records = PartitionRecords("),
    (fetcher.Fetcher.fetched_records, "res_or_error.getall(max_records)"),
    (fetcher.FetchResult.getall, "for msg in self._partition_records:"),
    (fetcher.FetchResult.__init__, "self._partition_records = partition_records"),
    (fetcher.PartitionRecords.__init__, "self._records = records"),
    (aiokafka.AIOKafkaConsumer.start, "self._fetcher = Fetcher("),
    # consumer
    (driver.Consumer.__init__, "self._thread = self._new_consumer_thread()"),
    (faust_consumer.Consumer._drain_messages, "get_read_offset = self._read_offset.__getitem__"),
    (faust_consumer.Consumer._drain_messages, "set_read_offset = self._read_offset.__setitem__"),
    (driver.AIOKafkaConsumerThread._seek_wait, "self.consumer._read_offset[tp] = offset"),
    (faust_consumer.Consumer.commit, "self.force_commit("),
    (faust_consumer.ConsumerThread.on_partitions_revoked, "threadsafe_partitions_revoked"),
    (faust_consumer.ThreadDelegateConsumer.threadsafe_partitions_revoked, "self.on_partitions_revoked"),
    (faust_consumer.Consumer.getmany, "await self.perform_seek()"),
    (faust_consumer.Consumer.__init__, "self.app.conf.ConsumerScheduler()"),
    (App._on_partitions_revoked, "self._producer_flush"),
    # recovery and tables
    (Recovery.on_recovery_completed, "table.on_recovery_completed("),
    (Recovery.on_recovery_completed, "consumer.perform_seek()"),
    (Recovery._build_highwaters, "consumer.highwaters(*tps)"),
    (Recovery._build_offsets, "consumer.earliest_offsets("),
    (TableManager.on_rebalance, "table.on_rebalance"),
    (TableManager.on_start, "await self._update_channels()\n            await self.recovery.start()"),
    (Collection.data.fget, "self._data = self._new_store()"),
    # stores
    (RocksDBStore._db_for_partition, "self._dbs[partition] = self._open_for_partition(partition)"),
    (RocksDBStore.on_rebalance, "self.revoke_partitions(self.table, revoked)"),
    (RocksDBStore.revoke_partitions, "self._dbs.pop(tp.partition, None)"),
    # client
    (AIOKafkaClient.set_topics, "self._topics = set(topics)"),
    (BatchBuilder.append, "return None"),
]


@pytest.mark.parametrize(("function", "says"), CALLS, ids=lambda value: getattr(value, "__qualname__", value))
def test_library_behaves_as_documented_here(function: object, says: str) -> None:
    """This line is the reason for an override. If it is gone, read the new version and reconsider the override."""
    assert says in source(function)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (driver.Producer, "_settings_extra"),
        (driver.Producer, "_new_producer"),
        (driver.Producer, "_ensure_producer"),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (driver.AIOKafkaConsumerThread, "_commit"),
        (driver.AIOKafkaConsumerThread, "_consumer"),
        (driver.Consumer, "_new_consumer_thread"),
        (driver.Consumer, "_commit"),
        (driver.Consumer, "verify_event_path"),
        (driver.Consumer, "create_topic"),
        (driver.Producer, "create_topic"),
        (RocksDBStore, "_db_for_partition"),
        (RocksDBStore, "_open_for_partition"),
        (RocksDBStore, "partition_path"),
        (RocksDBStore, "offset_key"),
        (Store, "persisted_offset"),
        (TableManager, "_update_channels"),
        (group_coordinator.GroupCoordinator, "_send_req"),
        (SubscriptionState, "reassignment_in_progress"),
        (Sender, "start"),
    ],
)
def test_private_library_name_exists(owner: object, name: str) -> None:
    assert hasattr(owner, name)


@pytest.mark.parametrize("request_name", ["HeartbeatRequest", "SyncGroupRequest"])
def test_membership_guard_recognises_request_names(request_name: str) -> None:
    assert hasattr(group_coordinator, request_name)


def test_produce_request_has_the_expected_name() -> None:
    from aiokafka.producer import sender

    assert sender.ProduceRequest.__name__.startswith("Produce")


async def test_faust_app_uses_our_subclasses(table: CountsTable) -> None:
    app = table.app
    assert isinstance(app.transport, Transport)
    assert isinstance(app.tables, PromptTableManager)
    assert isinstance(table.data, MemoryRows)
    producer: Any = app.producer
    assert producer._settings_extra() == {"acks": "all", "enable_idempotence": True}
    assert not issubclass(RocksRows, MemoryRows)


async def test_records_after_a_seek_back_are_delivered(table: CountsTable) -> None:
    """Faust would drop records below the last offset that it read."""
    consumer: Any = table.app.consumer
    tp = TP("t", 0)
    consumer._read_offset[tp] = 7
    consumer._read_offset.update({tp: 8})
    assert consumer._read_offset[tp] is None
    consumer._thread.thread_loop.close()  # the thread would have done it, had it run


async def test_no_produce_request_is_sent_without_membership(table: CountsTable) -> None:
    """The guard sits on the client that aiokafka's sender uses."""
    faust_producer: Any = table.app.producer
    producer = faust_producer._new_producer()
    assert producer._sender.client is producer.client

    class ProduceRequest:
        """Named as aiokafka's."""

    with pytest.raises(EndedError):
        await producer.client.send(0, ProduceRequest())
    producer._closed = True  # it was never started
