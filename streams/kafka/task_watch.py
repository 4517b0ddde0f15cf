"""One watch for the tasks inside aiokafka's clients: a task that ends in silence leaves a client that looks alive.

A consumer whose coordination task has died keeps its connections and never joins again; a producer without its sender
accepts records that no one sends; asyncio says so only when the task is collected as garbage, if ever. So every client
that `lifecycle.start` has started is watched. Whoever can opens the client anew, as soon as one of its tasks is gone
(`check_tasks`); what is still there a while later ends the process, which is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka.errors import KafkaError

TASKS = (
    "_client._sync_task",
    "client._sync_task",
    "_coordinator._coordination_task",
    "_coordinator._heartbeat_task",
    "_coordinator._commit_refresh_task",
    "_coordinator._reset_committed_task",
    "_fetcher._fetch_task",
    "_sender._sender_task",
)
"""Where aiokafka 0.14 keeps the tasks that live as long as a consumer or producer (consumer/group_coordinator.py,
consumer/fetcher.py, producer/sender.py, client.py)."""
RENEWED = ("_heartbeat_task", "_commit_refresh_task")
"""Those it ends and starts again with each generation: of these only a failure counts."""
EVERY = 0.5
"""Seconds between two looks."""
GRACE = 10.0
"""Seconds that the owner of a client has to open it anew before the process is ended."""


def find_ended_task(client: Any) -> str | None:
    """Return which task of a started consumer or producer has ended, and of what; None while all is well.

    A client that is closed, or has not been started, has nothing to watch. Cheap; may be called from another thread.
    """
    if client is None or getattr(client, "_closed", True):
        return None
    for path in TASKS:
        owner: Any = client
        for name in path.split("."):
            owner = getattr(owner, name, None)
        if not isinstance(owner, asyncio.Task) or not owner.done():
            continue
        name = path.rpartition(".")[2]
        error = None if owner.cancelled() else owner.exception()
        if error is None and name in RENEWED:
            continue
        kind = type(client).__name__.removeprefix("AIO")
        return f"{kind}: {name.strip('_').replace('_', ' ')} has ended: {'cancelled' if error is None else repr(error)}"
    return None


def check_tasks(client: Any) -> None:
    """Make sure that a client has all its tasks: whoever reads or writes with one in a loop asks in every round.

    Raises:
        KafkaError: it has lost one, and is to be closed and opened anew.

    """
    if (why := find_ended_task(client)) is not None:
        raise KafkaError(why)


async def watch_tasks(clients: Callable[[], Iterable[Any]], every: float = EVERY, grace: float = 0.0) -> str:
    """Return once a task of one of the clients has ended, with what `find_ended_task` says of it.

    `clients` is asked at each look, so that clients may come and go: one that is closed within `grace` seconds is no
    matter.
    """
    since: dict[int, float] = {}
    while True:
        now = asyncio.get_running_loop().time()
        ended = {id(client): why for client in clients() if (why := find_ended_task(client)) is not None}
        since = {client: since.get(client, now) for client in ended}
        for client, why in ended.items():
            if now - since[client] >= grace:
                return why
        await asyncio.sleep(every)
