"""The poller as a component: built from the settings, run until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import uvloop
from prometheus_client import CollectorRegistry

from tallystream.agents.openai_days import OpenAIDays
from tallystream.components import harness, logs
from tallystream.schemas.errors import UsageError
from tallystream.schemas.status import PollerStatus
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.client import OpenAIClientConfig
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.poll_run import PollProgress, PollResult
from tallystream.streams.poller.resources import load, select
from tallystream.streams.poller.service import Poller
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.ops import Health

DAY = 86_400
T = TypeVar("T")


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int, progress: PollProgress | None = None) -> None:
    """Run the poller until SIGTERM or SIGINT.

    Raises:
        UsageError: there is no key, the resource file or the CA file cannot be used, or the ops port is taken.
        UnfitError: a topic exists that is not as it must be.

    """
    logs.configure()
    service = partial(PollerWithDays, progress=progress)
    harness.run("poller", service, poller_config(settings, kafka), ops=(settings.ops_host, ops_port))


def run_once(
    settings: Settings, kafka: KafkaSettings, progress: PollProgress | None = None, resources: Sequence[str] = ()
) -> PollResult | None:
    """Poll everything once, or the resources named, and return what came of it; None when it was told to stop.

    Raises:
        UnreachableError: another poller is the active one, or Kafka does not answer.
        UsageError, UnfitError: as `run`.

    """
    logs.configure()
    config = poller_config(settings, kafka)
    config = replace(config, resources=select(config.resources, resources))
    poller = Poller(config, CollectorRegistry(), progress=progress)
    return uvloop.run(_until_told(poller.once()))


def poller_config(settings: Settings, kafka: KafkaSettings) -> PollerConfig:
    """Return the poller's configuration.

    Raises:
        UsageError: there is no key, or the resource file or the CA file cannot be used.

    """
    config = PollerConfig(
        kafka=kafka,
        topics=settings.topics(),
        resources=load(settings.openai_resources),
        tokens=tokens(settings),
        client=client_config(settings),
        interval=settings.openai_interval.total_seconds(),
        session_timeout=settings.openai_failover.total_seconds(),
        backfill=settings.openai_backfill * DAY,
    )
    config.client.ssl_context()
    return config


def tokens(settings: Settings) -> ApiKeys:
    """Return the keys.

    Raises:
        UsageError: none is set.

    """
    found: dict[str, ApiKey] = {}
    for kind in ("api", "admin", "session"):
        secret, file = getattr(settings, f"openai_{kind}_token"), getattr(settings, f"openai_{kind}_token_file")
        if secret is not None or file is not None:
            found[kind] = ApiKey(secret.get_secret_value().strip() if secret else None, file)
    if not found:
        raise UsageError(
            "there is no key to ask OpenAI with",
            "set TALLYSTREAM_OPENAI_API_TOKEN, or TALLYSTREAM_OPENAI_API_TOKEN_FILE to a file that holds it",
        )
    return ApiKeys(found)


def client_config(settings: Settings) -> OpenAIClientConfig:
    """Return how to reach OpenAI."""
    proxy = settings.openai_proxy
    return OpenAIClientConfig(
        base_url=settings.openai_base_url,
        organization=settings.openai_organization,
        project=settings.openai_project,
        proxy=proxy.get_secret_value() if proxy else None,
        ca=settings.openai_ca,
        timeout=settings.openai_timeout.total_seconds(),
    )


class PollerWithDays:
    """The poller, and beside it the agent that keeps what the records add up to per day."""

    def __init__(
        self, config: PollerConfig, registry: CollectorRegistry, clock: Clock, *, progress: PollProgress | None = None
    ) -> None:
        self._poller = Poller(config, registry, clock, progress=progress)
        self._days = OpenAIDays(config.kafka, config.topics, self._poller.days_done, self._poller.metrics.note_held)

    async def run(self) -> None:
        """Run both until cancelled; whichever ends with an error ends both.

        Raises:
            UsageError: the CA file cannot be used.
            UnfitError: a topic exists that is not as it must be.

        """
        tasks = [asyncio.ensure_future(self._poller.run()), asyncio.ensure_future(self._days.run())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel(*tasks)

    def healthy(self) -> Health:
        """Return whether the poller moves on."""
        return self._poller.healthy()

    def ready(self) -> Health:
        """Return whether the poller has joined its group."""
        return self._poller.ready()

    def status(self) -> PollerStatus:
        """Return whether it polls, and how far the days are."""
        return self._poller.status()


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
