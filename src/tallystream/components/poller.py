"""Builds the poller from the settings and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import uvloop
from prometheus_client import CollectorRegistry

from tallystream.agents.openai_days import OpenAIDays
from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.reconciliation.agent import ReconciliationAgent
from tallystream.agents.reconciliation.config import ReconciliationConfig
from tallystream.components import harness, logs
from tallystream.components.gateway import user_names
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
ANTHROPIC_HEADERS = (
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "analytics-usage-cost-2026-08-24"),
)
"""The second header enables the analytics cost and usage reports."""
T = TypeVar("T")


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int, progress: PollProgress | None = None) -> None:
    """Run the poller until SIGTERM or SIGINT.

    Raises:
        UsageError: no key is set, the resource file or the CA file cannot be used, or the ops port is taken.
        UnfitError: an existing topic has the wrong settings.

    """
    logs.configure()
    book = Book(read_overlay(settings.prices) if settings.prices else None)
    service = partial(PollerWithDays, book=book, progress=progress)
    harness.run("poller", service, poller_config(settings, kafka), ops=(settings.ops_host, ops_port))


def run_once(
    settings: Settings, kafka: KafkaSettings, progress: PollProgress | None = None, resources: Sequence[str] = ()
) -> PollResult | None:
    """Poll everything once, or the named resources, and return the result, or None when told to stop.

    Raises:
        UnreachableError: another poller is the active one, or Kafka does not answer.
        UsageError, UnfitError: as for `run`.

    """
    logs.configure()
    config = poller_config(settings, kafka)
    config = replace(config, resources=select(config.resources, resources))
    poller = Poller(config, CollectorRegistry(), progress=progress)
    return uvloop.run(_until_told(poller.once()))


def poller_config(settings: Settings, kafka: KafkaSettings) -> PollerConfig:
    """Return the poller's configuration.

    Raises:
        UsageError: no key is set, or the resource file or the CA file cannot be used.

    """
    config = PollerConfig(
        kafka=kafka,
        topics=settings.topics(),
        resources=tuple(one for one in load(settings.openai_resources) if _asked(settings, one.key)),
        tokens=tokens(settings),
        client=client_config(settings),
        anthropic=anthropic_config(settings) if settings.polls_anthropic else None,
        pseudonym=_pseudonym(settings),
        interval=settings.openai_interval.total_seconds(),
        session_timeout=settings.openai_failover.total_seconds(),
        backfill=settings.openai_backfill * DAY,
    )
    config.client.ssl_context()
    return config


def tokens(settings: Settings) -> ApiKeys:
    """Return the keys.

    Raises:
        UsageError: no key is set.

    """
    found: dict[str, ApiKey] = {}
    for kind in ("api", "admin", "session"):
        secret, file = getattr(settings, f"openai_{kind}_token"), getattr(settings, f"openai_{kind}_token_file")
        if secret is not None or file is not None:
            found[kind] = ApiKey(secret.get_secret_value().strip() if secret else None, file)
    if settings.polls_anthropic:
        secret, file = settings.anthropic_admin_token, settings.anthropic_admin_token_file
        found["anthropic"] = ApiKey(secret.get_secret_value().strip() if secret else None, file)
    if not found:
        raise UsageError(
            "no API key for OpenAI is set",
            "set TALLYSTREAM_OPENAI_API_TOKEN, or TALLYSTREAM_OPENAI_API_TOKEN_FILE to a file that holds it",
        )
    return ApiKeys(found)


def client_config(settings: Settings) -> OpenAIClientConfig:
    """Return the configuration of the client for OpenAI."""
    proxy = settings.openai_proxy
    return OpenAIClientConfig(
        base_url=settings.openai_base_url,
        organization=settings.openai_organization,
        project=settings.openai_project,
        proxy=proxy.get_secret_value() if proxy else None,
        ca=settings.openai_ca,
        timeout=settings.openai_timeout.total_seconds(),
    )


def anthropic_config(settings: Settings) -> OpenAIClientConfig:
    """Return the configuration of the client for Anthropic."""
    return replace(
        client_config(settings),
        base_url=settings.anthropic_base_url,
        organization=None,
        project=None,
        name="Anthropic",
        key_header="x-api-key",
        headers=ANTHROPIC_HEADERS,
    )


def _asked(settings: Settings, key: str) -> bool:
    """Return whether a key of the resource's provider is set."""
    return settings.polls_anthropic if key == "anthropic" else settings.polls_openai


def _pseudonym(settings: Settings) -> Callable[[str], str] | None:
    """Return the pseudonyms that replace people in rows, or None if no key to hash them with is set."""
    try:
        return user_names(settings)
    except UsageError:
        return None


class PollerWithDays:
    """The poller, together with the agents that derive daily statements from its records."""

    def __init__(
        self,
        config: PollerConfig,
        registry: CollectorRegistry,
        clock: Clock,
        *,
        book: Book | None = None,
        progress: PollProgress | None = None,
    ) -> None:
        reconciliation = ReconciliationConfig(config.kafka, config.topics, book or Book())
        self._reconciliation = ReconciliationAgent(reconciliation, registry, clock)
        self._poller = Poller(config, registry, clock, progress=progress)
        self._days = OpenAIDays(config.kafka, config.topics, self._poller.days_done, self._poller.metrics.note_held)

    async def run(self) -> None:
        """Run all of them until cancelled. An error in one ends all.

        Raises:
            UsageError: the CA file cannot be used.
            UnfitError: an existing topic has the wrong settings.

        """
        work = (self._poller.run(), self._days.run(), self._reconciliation.run())
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel(*tasks)

    def healthy(self) -> Health:
        """Return whether the poller makes progress."""
        return self._poller.healthy()

    def ready(self) -> Health:
        """Return whether the poller has joined its group."""
        return self._poller.ready()

    def status(self) -> PollerStatus:
        """Return whether this poller is active, and the positions of the days and of the statements."""
        return self._poller.status().model_copy(update={"reconciled": self._reconciliation.reached()})


async def _until_told(work: Coroutine[None, None, T]) -> T | None:
    """Return the result of the work, or None if SIGTERM or SIGINT stopped it. It then leaves its group at once."""
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
