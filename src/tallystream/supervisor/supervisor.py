"""Supervises all components of one machine, from the first start to the last stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from itertools import groupby

import aiohttp

from tallystream.schemas.errors import TallystreamError
from tallystream.schemas.run import Run
from tallystream.supervisor import runfile
from tallystream.supervisor.child import Child, Events, FirstStartError
from tallystream.supervisor.logfile import LogFile
from tallystream.supervisor.specs import ComponentSpec, Plan

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREPARE_AGAIN = 5.0


class Supervisor:
    """Runs a plan until told to stop.

    `prepare` is awaited when Kafka answers, before components that need Kafka start. `say` is called with (component,
    text) to inform the user. `started` is called once, when everything is ready and run.json is written.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        prepare: Callable[[], Awaitable[None]],
        say: Callable[[str, str], None],
        started: Callable[[Run], None],
    ) -> None:
        self._plan = plan
        self._prepare = prepare
        self._say = say
        self._started = started
        self._children: dict[ComponentSpec, Child] = {}
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._complete = False
        self._outward = {spec.name for spec in plan.specs if spec.outward}

    async def run(self) -> None:
        """Start everything, keep it running, and return when SIGINT, SIGTERM or SIGHUP has stopped it.

        A second signal kills what still runs. The caller must hold the data dir's lock and call this in the main
        thread, because the components end with the thread that started them.

        Raises:
            TallystreamError: a component did not become ready, or Kafka could not be prepared. Nothing runs then.

        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._told)
        runfile.remove(self._plan.data_dir)
        logs = {spec: LogFile(self._plan.data_dir / "logs" / f"{spec.name}.log") for spec in self._plan.specs}
        async with aiohttp.ClientSession() as http:
            events = Events(ready=self._publish, say=self._say, warn=self._warn)
            self._children = {
                spec: Child(
                    spec,
                    self._plan.timing,
                    log,
                    http,
                    events,
                    give_up=spec.gates and (not self._plan.served_before or spec.name.startswith("gateway")),
                )
                for spec, log in logs.items()
            }
            try:
                await self._until_told()
            finally:
                await self._stop_all()
                runfile.remove(self._plan.data_dir)
                for log in logs.values():
                    log.close()

    def _told(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _until_told(self) -> None:
        life = asyncio.create_task(self._live())
        told = asyncio.create_task(self._stop.wait())
        await asyncio.wait((life, told), return_when=asyncio.FIRST_COMPLETED)
        # From now on nothing is restarted: the tasks that restart processes end before the processes do.
        failed = life.done()
        for task in (life, told):
            task.cancel()
        await asyncio.wait((life, told))
        if failed:
            life.result()

    async def _live(self) -> None:
        """Start everything in order and keep it running. Ends only with an error.

        Once clients send here (`served_before`), only a failure of the gateway to start is an error.
        """
        try:
            async with asyncio.TaskGroup() as group:

                def launch(*, needs_kafka: bool) -> None:
                    for spec, child in self._children.items():
                        if spec.needs_kafka == needs_kafka:
                            group.create_task(child.run(), name=spec.name)

                launch(needs_kafka=False)
                for spec, child in self._children.items():
                    if spec.is_kafka:
                        await child.ready.wait()
                await self._prepared()
                launch(needs_kafka=True)
                for spec, child in self._children.items():
                    if spec.gates:
                        await child.tried.wait()
                self._complete = True
                self._publish()
                self._started(self._run_file())
        except BaseExceptionGroup as exc:
            first = exc.exceptions[0]
            if isinstance(first, FirstStartError):
                raise first.cause(f"{first.name} did not start: {first.message}", first.hint) from first
            raise first from exc

    async def _prepared(self) -> None:
        """Prepare Kafka. If clients already send here, unfit topics do not stop the gateway from accepting data."""
        said = ""
        while True:
            try:
                await self._prepare()
            except TallystreamError as exc:
                if not self._plan.served_before:
                    raise
                if exc.message != said:
                    said = exc.message
                    self._say(
                        "kafka",
                        f"{exc.message} ({exc.hint}); the gateway spools what it accepts, and this is tried again",
                    )
                await asyncio.sleep(PREPARE_AGAIN)
            else:
                return

    def _publish(self) -> None:
        if self._complete:
            runfile.write(self._plan.data_dir, self._run_file())

    def _warn(self, component: str, text: str) -> None:
        # While components start concurrently, they may not find each other yet. That is expected, and in their logs.
        if self._complete or component in self._outward:
            self._say(component, text)

    def _run_file(self) -> Run:
        components = [child.component for child in self._children.values() if child.begun]
        plan = self._plan
        return Run(http=plan.http, grpc=plan.grpc, kafka=plan.kafka, console=plan.console, components=components)

    async def _stop_all(self) -> None:
        """Stop rank by rank: first what accepts data, then what processes it, then Kafka."""
        ranked = sorted(self._children.items(), key=lambda item: item[0].stop_rank)
        for _, rank in groupby(ranked, key=lambda item: item[0].stop_rank):
            await asyncio.gather(*(child.stop(hurry=self._hurry) for _, child in rank))
