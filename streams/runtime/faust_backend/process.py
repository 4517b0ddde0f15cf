"""Runs an app inside our own process, without Faust's command line, logging and handling of standard streams."""

from __future__ import annotations

import asyncio
import signal

from tallystream.streams.runtime.faust_backend.app import App

STOP_TIMEOUT = 20.0
"""Seconds that a stop may take; a supervisor kills after 25. Faust and aiokafka wait much longer for acknowledgements
that do not arrive."""


async def run(app: App, stop: asyncio.Event | None = None) -> None:
    """Run `app` until `stop` is set, then stop it cleanly; without `stop`, until SIGTERM or SIGINT.

    Call it in the main thread's event loop. Any error ends the process with code 70.
    """
    loop = asyncio.get_running_loop()
    signals = () if stop is not None else (signal.SIGTERM, signal.SIGINT)
    stop = stop or asyncio.Event()
    for signum in signals:
        loop.add_signal_handler(signum, stop.set)
    app.in_worker = True
    starting = asyncio.ensure_future(app.start())
    stopping = asyncio.ensure_future(stop.wait())
    watching = asyncio.ensure_future(app.watch_clients())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
        watching.cancel()
        closing = asyncio.ensure_future(app.stop())
        await asyncio.wait((closing,), timeout=STOP_TIMEOUT)
        if not closing.done():
            app.die(f"it did not stop within {STOP_TIMEOUT:.0f} s: Kafka does not answer; the next process continues")
        closing.result()
        # A start that is still running may wait forever for a response on a connection that `stop` has closed.
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    except Exception as exc:  # noqa: BLE001 - one way out for all
        app.die(exc)
    finally:
        stopping.cancel()
        watching.cancel()
        for signum in signals:
            loop.remove_signal_handler(signum)
