"""The Faust app of a worker, on the runtime's transport and stores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.task_watch import watch_tasks
from tallystream.streams.runtime.crash import FailFast
from tallystream.streams.runtime.faust_backend.assignor import CANONICAL_URL, StableAssignor
from tallystream.streams.runtime.faust_backend.batches import BatchScheduler
from tallystream.streams.runtime.faust_backend.context import RuntimeContext
from tallystream.streams.runtime.faust_backend.table_manager import PromptTableManager
from tallystream.streams.runtime.faust_backend.transport import register
from tallystream.streams.runtime.membership import Membership
from tallystream.streams.service.ops import Health

DRAIN_TIMEOUT = 5.0
STUCK_AFTER = 30.0
FETCH_BYTES = 2 << 20
"""Bytes of one partition in one fetch. In a backlog larger batches make an event cheaper, and take more memory."""


class App(faust.App):
    """faust.App with the settings the runtime needs. All its agents must be folds, because the consumer commits only
    their positions.

    `id` is the consumer group and the prefix of the changelogs' names; `instance` makes it a static member. Times are
    in seconds. `exit` ends the process (tests pass their own); it must not return.

    Promise: any failure ends the process with code 70, before anything else is written.

    Relies on `App._consumer` (faust/app/base.py) and, to see a rebalance that has begun, on the thread's `_consumer`
    and aiokafka's `_subscription.reassignment_in_progress` (consumer/subscription_state.py).
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - Faust's name
        kafka: KafkaSettings,
        *,
        datadir: Path,
        partitions: int,
        store: Literal["rocksdb", "memory"] = "rocksdb",
        instance: str | None = None,
        session_timeout: float = 10.0,
        rebalance_timeout: float = 30.0,
        heartbeat_interval: float = 2.0,
        exit: Callable[[int], NoReturn] = os._exit,  # noqa: A002 - the documented name
        **settings: object,
    ) -> None:
        register()
        self.context = RuntimeContext(kafka, FailFast(exit), Membership(session_timeout))
        self.die = self.context.fail_fast
        defaults: dict[str, Any] = {
            "broker": [f"exact://{server}" for server in kafka.bootstrap.split(",")],
            "broker_credentials": credentials(kafka),
            "store": f"exact-{store}://",
            "datadir": datadir,
            "topic_partitions": partitions,
            "consumer_group_instance_id": instance,
            "broker_session_timeout": session_timeout,
            "broker_rebalance_timeout": rebalance_timeout,
            "broker_heartbeat_interval": heartbeat_interval,
            "broker_request_timeout": max(30.0, session_timeout),
            "broker_commit_interval": 1.0,
            "processing_guarantee": "at_least_once",
            "stream_wait_empty": False,
            "consumer_max_fetch_size": FETCH_BYTES,
            "stream_recovery_delay": 0.0,
            "stream_buffer_maxsize": 80,  # in batches; when the buffer is full, the consumer sleeps for 1 s
            "ConsumerScheduler": BatchScheduler,
            "TableManager": PromptTableManager,
            "PartitionAssignor": StableAssignor,
            "canonical_url": CANONICAL_URL,
            "topic_disable_leader": True,  # the long poll of an idle partition would stall the busy ones
            "table_standby_replicas": 0,
            "producer_linger": 0.0,
            "producer_max_batch_size": 900_000,
            "web_enabled": False,
        }
        super().__init__(id, **{**defaults, **settings})

    @property
    def rebalances(self) -> int:
        """Return the number of rebalances, including the first join."""
        return self.context.rebalances

    def must_be_member(self) -> None:
        """End the process when another worker may own our partitions; called before every write."""
        self.context.must_be_member()

    @property
    def rebalance_pending(self) -> bool:
        """Tell whether partitions have been revoked and not assigned again yet."""
        consumer: Any = self.consumer
        thread = consumer._thread._consumer  # noqa: SLF001 - named above
        return thread is None or bool(thread._subscription.reassignment_in_progress)  # noqa: SLF001 - named above

    # -- health

    def healthy(self, stuck_after: float = STUCK_AFTER) -> Health:
        """Tell whether the worker makes progress: false while work waits without progress for `stuck_after` seconds."""
        silence = self.context.membership.silence()
        if silence > stuck_after + self.conf.broker_rebalance_timeout:
            return Health(
                False, f"no heartbeat accepted for {silence:.0f} s: Kafka is unavailable, or the consumer hangs"
            )
        for engine in self.context.engines:
            if (why := engine.progress().stuck(stuck_after)) is not None:
                return Health(False, f"{engine.name}: {why}")
        return Health(True)

    def ready(self) -> Health:
        """Tell whether this worker folds all its assigned partitions."""
        if (why := self.context.membership.lost()) is not None:
            return Health(False, why)
        if self.rebalancing:
            return Health(False, "rebalancing")
        for engine in self.context.engines:
            if pending := engine.progress().pending:
                return Health(False, f"{engine.name}: {pending} partitions to recover")
        return Health(True)

    # -- life

    async def on_first_start(self) -> None:
        """Create the data directory."""
        self.conf.datadir.mkdir(parents=True, exist_ok=True)
        await super().on_first_start()

    def kafka_clients(self) -> list[Any]:
        """Return the aiokafka clients that Faust has created so far.

        Relies on `Producer._producer` and the consumer's `_thread._consumer` (faust/transport/drivers/aiokafka.py).
        """
        producer: Any = getattr(self, "_producer", None)
        consumer: Any = getattr(self, "_consumer", None)
        thread = getattr(consumer, "_thread", None)
        return [getattr(producer, "_producer", None), getattr(thread, "_consumer", None)]

    async def watch_clients(self) -> None:
        """End the process when a task of a client ends by itself, because then the client only looks alive."""
        why = await watch_tasks(self.kafka_clients)
        if not self.should_stop:
            self.die(why)

    async def drain(self) -> None:
        """Stop folding, wait until everything folded is acknowledged, and commit the positions."""
        owned = [engine for engine in self.context.engines if engine.applied()]
        for engine in owned:
            await engine.drain(DRAIN_TIMEOUT)
        if owned:
            await self.consumer.commit()

    async def stop(self) -> None:
        """Stop cleanly: everything folded is acknowledged and the group's offsets are committed."""
        if self.started and not self.should_stop:
            await self.drain()
        await super().stop()

    def _crash(self, reason: BaseException) -> None:
        """End the process: mode calls this for an error in the app and in any service below it.

        Overriding `crash` would not do: a service that crashes marks those above it with `_crash` alone.
        """
        if not self.should_stop:
            self.die(reason)
        super()._crash(reason)


def credentials(kafka: KafkaSettings) -> CredentialsT | None:
    """Return how to authenticate, in Faust's terms; None for PLAINTEXT.

    Raises:
        OSError: a file that `kafka` names cannot be read. ssl.SSLError: a file that `kafka` names is not valid.

    """
    context = kafka.ssl_context()
    if kafka.protocol.startswith("SASL"):
        return SASLCredentials(
            username=kafka.username, password=kafka.password, ssl_context=context, mechanism=kafka.sasl_mechanism
        )
    return SSLCredentials(context) if context is not None else None
