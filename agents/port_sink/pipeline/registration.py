"""Registers the sink as an integration in Port, so that Port shows it with its last sync, and sends samples of records.

It is a courtesy to readers of Port's pages: a failure is logged and shown in the status, and never holds up delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from tallystream import __version__
from tallystream.agents.port_sink.errors import PortError
from tallystream.agents.port_sink.metrics import SinkMetrics
from tallystream.agents.port_sink.port import integration
from tallystream.agents.port_sink.port.client import PortClient
from tallystream.schemas.errors import PermanentError
from tallystream.streams.leader_election import Fence
from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock

log = structlog.get_logger()
MARK = "tallystream"
"""How our versions begin: an integration of another version is somebody else's."""
AGAIN = Backoff(first=15.0, longest=3600.0)
"""Delay before another attempt after a failure."""
TICK = 0.5
SETTLE = 60.0
"""Seconds after which a sync counts as completed even though entities are always under way."""


class NotOursError(PermanentError):
    """An integration with our identifier belongs to something else."""

    code = "integration_not_ours"


@dataclass
class Registration:
    """The registration of one term. `busy` tells whether the documents of a sweep still wait, `under_way` whether any
    entity does, `failed` whether something is not written at all.
    """

    client: PortClient
    fence: Fence
    metrics: SinkMetrics
    clock: Clock
    mapping: Mapping[str, Any]
    interval: float
    """Seconds between two syncs."""
    busy: Callable[[], bool]
    under_way: Callable[[], bool]
    failed: Callable[[], bool]
    on_problem: Callable[[str | None], None]
    """Called with why it does not work, None when it does."""
    _begun: float | None = None
    """When the sync began that has not been reported as ended."""
    _running: bool = False
    _swept: float | None = None
    _samples: dict[str, Sequence[Any]] = field(default_factory=dict)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def sync_begins(self) -> None:
        """Note that everything is compared from now on."""
        self._begun, self._running, self._swept = self._now(), False, None
        self._idle.clear()

    def show(self, kind: str, records: Sequence[Any]) -> None:
        """Note masked samples of a kind, to be sent."""
        self._samples[kind] = records
        self._idle.clear()

    async def run(self) -> None:
        """Keep Port informed until cancelled.

        Raises:
            NotLeaderError: another sink writes, or may write.

        """
        attempt, registered, told = 0, False, ""
        while True:
            try:
                await self.fence.ensure()
                if not registered:
                    await self._register()
                    registered = True
                    log.info("integration_registered", identifier=self.client.config.identifier)
                await self._report()
                await self._send()
            except (PortError, NotOursError) as exc:
                registered = False
                self.metrics.registered.set(0)
                self.on_problem(exc.message)
                if told != exc.message:
                    log.warning("integration_not_registered", why=exc.message, hint=exc.hint)
                told = exc.message
                self._idle.set()
                await asyncio.sleep(AGAIN.delay(attempt))
                attempt += 1
                continue
            self.metrics.registered.set(1)
            self.on_problem(None)
            attempt, told = 0, ""
            if self._begun is None and not self._samples:
                self._idle.set()
            await asyncio.sleep(TICK)

    async def settled(self, within: float) -> None:
        """Wait until there is nothing left to say, or saying it has failed, for a limited time (seconds)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()

    async def _register(self) -> None:
        version, config = f"{MARK} {__version__}", shown(self.mapping)
        have = await integration.get(self.client)
        if have is None:
            await integration.create(self.client, version, config)
        elif not str(have.get("version", "")).startswith(MARK):
            raise NotOursError(
                f"Port has an integration {self.client.config.identifier!r} that is not ours",
                "set TALLYSTREAM_PORT_IDENTIFIER to another name, or delete that integration in Port",
            )
        elif (have.get("version"), have.get("config")) != (version, config):
            await integration.change(self.client, version, config)

    async def _report(self) -> None:
        """Report that a sync runs, or has ended."""
        if self._begun is None:
            return
        begun = self._begun
        plan = {"nextResync": _iso(begun + self.interval), "intervalInMinuets": max(1, round(self.interval / 60))}
        if not self._running:
            running = {"status": "running", "lastResyncStart": _iso(begun), "lastResyncEnd": None}
            await integration.set_state(self.client, {**running, **plan})
            self._running = True
        if self.busy():
            return
        self._swept = self._swept or self._now()
        if self.under_way() and self._now() - self._swept < SETTLE:
            return
        status = "failed" if self.failed() else "completed"
        await integration.set_state(self.client, {"status": status, "lastResyncEnd": _iso(self._now()), **plan})
        if self._begun == begun:
            self._begun = None

    async def _send(self) -> None:
        while self._samples:
            kind, records = next(iter(self._samples.items()))
            try:
                await integration.send_examples(self.client, kind, records)
            except TypeError as exc:
                log.warning("sample_not_sent", kind=kind, why=type(exc).__name__)
            if self._samples.get(kind) is records:
                del self._samples[kind]

    def _now(self) -> float:
        return self.clock.now_ns() / 1e9


def shown(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as Port may show it: without headers, parameters and bodies of requests, which may be secret."""
    resources = [
        {**one, "selector": {key: one["selector"][key] for key in ("query", "data_path") if key in one["selector"]}}
        for one in mapping["resources"]
    ]
    return {**mapping, "resources": resources}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
