"""Faust's transport scheme `exact://` and the stores `exact-rocksdb://` and `exact-memory://`."""

from __future__ import annotations

from typing import Any, ClassVar

from faust.stores import STORES
from faust.transport import drivers
from faust.transport.drivers import aiokafka as driver

from tallystream.streams.runtime.faust_backend.consumer import Consumer
from tallystream.streams.runtime.faust_backend.producer import Producer


class Transport(driver.Transport):
    """Kafka through aiokafka, with the runtime's producer and consumer."""

    Consumer: ClassVar[Any] = Consumer
    Producer: ClassVar[Any] = Producer


def register() -> None:
    """Make the schemes known to Faust (its `aliases`, the extension point that needs no installed entry point)."""
    stores = "tallystream.streams.runtime.faust_backend.stores"
    STORES.aliases.update({"exact-memory": f"{stores}:MemoryRows", "exact-rocksdb": f"{stores}:RocksRows"})
    drivers.TRANSPORTS.aliases["exact"] = f"{__name__}:Transport"
