"""Builds the poller from the settings and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from tallystream.agents.openai_days import OpenAIDays
from tallystream.agents.port_sink.mapping.polled import resource_of
from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.reconciliation.agent import ReconciliationAgent
from tallystream.agents.reconciliation.config import ReconciliationConfig
from tallystream.components import harness, logs
from tallystream.components.gateway import user_names
from tallystream.components.sink import read_mapper
from tallystream.schemas.errors import UsageError
from tallystream.schemas.status import PollerStatus
from tallystream.settings.ocean_ignored import ignored_settings
from tallystream.settings.places import named_files
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.loops import run_loops
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.client import OpenAIClientConfig
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.poll_run import PollProgress, PollResult
from tallystream.streams.poller.providers import Provider
from tallystream.streams.poller.resources import BUILTIN, Declared, Resource, builtin, load, select
from tallystream.streams.poller.service import Poller
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.http import environment_proxy
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
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
    for ignored in ignored_settings():
        log.warning("setting_ignored", name=ignored.name, hint=ignored.hint)
    declared, not_polled = read_resources(settings)
    config = PollerConfig(
        kafka=kafka,
        topics=settings.topics(),
        resources=tuple(one for one in declared.resources if one.provider or _asked(settings, one.key)),
        not_polled=not_polled,
        tokens=tokens(settings, declared.providers),
        providers={one.name: provider_config(settings, one) for one in declared.providers},
        client=client_config(settings),
        anthropic=anthropic_config(settings) if settings.polls_anthropic else None,
        pseudonym=_pseudonym(settings),
        interval=settings.openai_interval.total_seconds(),
        session_timeout=settings.openai_failover.total_seconds(),
        backfill=settings.openai_backfill * DAY,
    )
    config.client.ssl_context()
    return config


def read_resources(settings: Settings) -> tuple[Declared, tuple[str, ...]]:
    """Return everything that can be polled: the built-in resources, changed by the user's files, and the endpoints that
    the user's mapping names and no resource has. Also return, and log, what of the mapping cannot be polled.

    Raises:
        UsageError: a resource file cannot be used.

    """
    declared = declared_resources(settings)
    if settings.port_mapping is None:
        return declared, ()
    try:
        mapped, problems = mapped_resources(settings, declared.resources)
    except UsageError as exc:
        # The sink reports it too, and what the mapping does not name is polled anyway.
        mapped, problems = [], [exc]
    for problem in problems:
        log.warning("kind_not_polled", why=problem.message, hint=problem.hint)
    return replace(declared, resources=(*declared.resources, *mapped)), tuple(one.message for one in problems)


def declared_resources(settings: Settings) -> Declared:
    """Return the built-in resources, changed by the user's files, and the user's own providers.

    Raises:
        UsageError: a file cannot be used.

    """
    places = named_files(settings.openai_resources, "TALLYSTREAM_OPENAI_RESOURCES", (".toml", ".yaml", ".yml"))
    return load(*(path for path in places if path is not None))


def mapped_resources(settings: Settings, declared: Sequence[Resource]) -> tuple[list[Resource], list[UsageError]]:
    """Return the resources that the mapping adds to those that are declared, and why others cannot be polled.

    A built-in resource that the user has disabled is not added again.

    Raises:
        UsageError: the mapping cannot be used.

    """
    names = {one.name for one in (*builtin(*BUILTIN), *declared)}
    found, problems = list[Resource](), list[UsageError]()
    for kind, mapping in read_mapper(settings).endpoints.items():
        if kind in names:
            continue
        try:
            found.append(resource_of(mapping))
        except UsageError as exc:
            problems.append(exc)
    return found, problems


def tokens(settings: Settings, providers: Sequence[Provider] = ()) -> ApiKeys:
    """Return the keys, also those of the user's own providers.

    Raises:
        UsageError: no key is set.

    """
    found: dict[str, ApiKey] = {one.name: one.key for one in providers}
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
        proxy=proxy.get_secret_value() if proxy else environment_proxy(settings.openai_base_url),
        ca=settings.openai_ca,
        timeout=settings.openai_timeout.total_seconds(),
    )


def anthropic_config(settings: Settings) -> OpenAIClientConfig:
    """Return the configuration of the client for Anthropic."""
    proxy = settings.openai_proxy
    return replace(
        client_config(settings),
        proxy=proxy.get_secret_value() if proxy else environment_proxy(settings.anthropic_base_url),
        base_url=settings.anthropic_base_url,
        organization=None,
        project=None,
        name="Anthropic",
        auth="api_key",
        key_header="x-api-key",
        headers=ANTHROPIC_HEADERS,
    )


def provider_config(settings: Settings, provider: Provider) -> OpenAIClientConfig:
    """Return the configuration of the client for a provider of the user's own."""
    proxy = environment_proxy(provider.base_url) if provider.proxy_from_environment else None
    return replace(
        client_config(settings),
        base_url=provider.base_url,
        organization=None,
        project=None,
        proxy=proxy,
        name=provider.name,
        auth=provider.auth,
        key_header=provider.header,
        username=provider.username or "",
        headers=tuple(provider.headers.items()),
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
        self._days = OpenAIDays(config.kafka, config.topics, self._poller.days_done, self._poller.days_held)

    async def run(self) -> None:
        """Run all of them until cancelled. An error in one ends all.

        Raises:
            UsageError: the CA file cannot be used.
            UnfitError: an existing topic has the wrong settings.

        """
        await run_loops(self._poller.run(), self._days.run(), self._reconciliation.run())

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
