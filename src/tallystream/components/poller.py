"""The poller as a component: built from the settings, run until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

import uvloop
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from tallystream.agents.openai_days import OpenAIDays
from tallystream.components import logs
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.client import ClientConfig
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import Token, Tokens
from tallystream.streams.poller.resources import load
from tallystream.streams.poller.round import Progress, Round
from tallystream.streams.poller.service import Poller
from tallystream.streams.service.ops import OpsServer

DAY = 86_400
T = TypeVar("T")


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int, progress: Progress | None = None) -> None:
    """Run the poller until SIGTERM or SIGINT.

    Raises:
        UsageError: there is no key, the resource file or the CA file cannot be used, or the ops port is taken.
        UnfitError: a topic exists that is not as it must be.

    """
    logs.configure()
    uvloop.run(_serve(settings, kafka, ops_port, progress))


def run_once(settings: Settings, kafka: KafkaSettings, progress: Progress | None = None) -> Round | None:
    """Poll everything once and return what came of it; None when it was told to stop.

    Raises:
        UnreachableError: another poller is the active one, or Kafka does not answer.
        UsageError, UnfitError: as `run`.

    """
    logs.configure()
    poller = Poller(kafka, settings.topics(), poller_config(settings), progress=progress)
    return uvloop.run(_until_told(poller.once()))


def poller_config(settings: Settings) -> PollerConfig:
    """Return the poller's configuration.

    Raises:
        UsageError: there is no key, or the resource file or the CA file cannot be used.

    """
    config = PollerConfig(
        resources=load(settings.openai_resources),
        tokens=tokens(settings),
        client=client_config(settings),
        interval=settings.openai_interval.total_seconds(),
        session_timeout=settings.openai_failover.total_seconds(),
        backfill=settings.openai_backfill * DAY,
    )
    config.client.ssl_context()
    return config


def tokens(settings: Settings) -> Tokens:
    """Return the keys.

    Raises:
        UsageError: none is set.

    """
    found: dict[str, Token] = {}
    for kind in ("api", "admin", "session"):
        secret, file = getattr(settings, f"openai_{kind}_token"), getattr(settings, f"openai_{kind}_token_file")
        if secret is not None or file is not None:
            found[kind] = Token(secret.get_secret_value().strip() if secret else None, file)
    if not found:
        raise UsageError(
            "there is no key to ask OpenAI with",
            "set TALLYSTREAM_OPENAI_API_TOKEN, or TALLYSTREAM_OPENAI_API_TOKEN_FILE to a file that holds it",
        )
    return Tokens(found)


def client_config(settings: Settings) -> ClientConfig:
    """Return how to reach OpenAI."""
    proxy = settings.openai_proxy
    return ClientConfig(
        base_url=settings.openai_base_url,
        organization=settings.openai_organization,
        project=settings.openai_project,
        proxy=proxy.get_secret_value() if proxy else None,
        ca=settings.openai_ca,
        timeout=settings.openai_timeout.total_seconds(),
    )


async def _serve(settings: Settings, kafka: KafkaSettings, ops_port: int, progress: Progress | None) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    poller = Poller(kafka, settings.topics(), poller_config(settings), registry=registry, progress=progress)
    ops = OpsServer(poller.health, poller.ready, host=settings.ops_host, port=ops_port, registry=registry)
    await ops.listen()
    try:
        await _until_told(_with_days(poller, OpenAIDays(kafka, settings.topics(), poller.metrics.days_offset.set)))
    finally:
        await ops.stop()


async def _with_days(poller: Poller, days: OpenAIDays) -> None:
    """Poll, and keep what the records add up to per day; whoever ends with an error ends both."""
    tasks = [asyncio.ensure_future(poller.run()), asyncio.ensure_future(days.run())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancel(*tasks)


async def _until_told(work: Coroutine[None, None, T]) -> T | None:
    """Return what the work returns, or None once SIGTERM or SIGINT has stopped it: it leaves its group at once."""
    task = asyncio.ensure_future(work)
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            return None
        raise
