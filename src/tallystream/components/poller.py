"""The poller as a component: built from the settings, run until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
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
from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.reconciliation.config import ReconciliationConfig
from tallystream.agents.reconciliation.metrics import ReconciliationMetrics
from tallystream.agents.reconciliation.service import ReconciliationService
from tallystream.components import logs
from tallystream.components.gateway import user_names
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.client import OpenAIClientConfig
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.poll_run import PollProgress, PollResult
from tallystream.streams.poller.resources import load
from tallystream.streams.poller.service import Poller
from tallystream.streams.service.ops import OpsServer

DAY = 86_400
ANTHROPIC_HEADERS = (
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "analytics-usage-cost-2026-08-24"),
)
"""The second one opens the analytics cost and usage reports."""
T = TypeVar("T")


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int, progress: PollProgress | None = None) -> None:
    """Run the poller until SIGTERM or SIGINT.

    Raises:
        UsageError: there is no key, the resource file or the CA file cannot be used, or the ops port is taken.
        UnfitError: a topic exists that is not as it must be.

    """
    logs.configure()
    uvloop.run(_serve(settings, kafka, ops_port, progress))


def run_once(settings: Settings, kafka: KafkaSettings, progress: PollProgress | None = None) -> PollResult | None:
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
        UsageError: none is set.

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


def anthropic_config(settings: Settings) -> OpenAIClientConfig:
    """Return how to reach Anthropic."""
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
    """Tell whether there is a key of a resource's provider."""
    return settings.polls_anthropic if key == "anthropic" else settings.polls_openai


def _pseudonym(settings: Settings) -> Callable[[str], str] | None:
    """Return what replaces people in rows; None where this deployment has no key to hash them with."""
    try:
        return user_names(settings)
    except UsageError:
        return None


async def _serve(settings: Settings, kafka: KafkaSettings, ops_port: int, progress: PollProgress | None) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    poller = Poller(kafka, settings.topics(), poller_config(settings), registry=registry, progress=progress)
    reconciliation = ReconciliationService(
        ReconciliationConfig(Book(read_overlay(settings.prices) if settings.prices else None)),
        kafka,
        settings.topics(),
        ReconciliationMetrics(registry),
    )
    ops = OpsServer(poller.health, poller.ready, host=settings.ops_host, port=ops_port, registry=registry)
    await ops.listen()
    try:
        days = OpenAIDays(kafka, settings.topics(), poller.metrics.days_offset.set, poller.metrics.note_held)
        await _until_told(_with_days(poller, days, reconciliation))
    finally:
        await ops.stop()


async def _with_days(poller: Poller, days: OpenAIDays, reconciliation: ReconciliationService) -> None:
    """Poll, and keep what the records say of each day; whoever ends with an error ends all."""
    tasks = [asyncio.ensure_future(one) for one in (poller.run(), days.run(), reconciliation.run())]
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
