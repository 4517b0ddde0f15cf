"""Watches the tasks inside aiokafka's clients, because a client whose task has ended silently looks alive.

A consumer whose coordination task has died keeps its connections and never joins again; a producer without its sender
accepts records but never sends them; asyncio reports it only when the task is garbage-collected, if ever. So all
clients that `lifecycle.start` has started are watched. The owner of a client reopens it as soon as one of its tasks
has ended (`check_tasks`); if the owner does not, the process ends and is started again.
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
"""Attributes in which aiokafka 0.14 keeps the tasks that live as long as a consumer or producer
(consumer/group_coordinator.py, consumer/fetcher.py, producer/sender.py, client.py)."""
RENEWED = ("_heartbeat_task", "_commit_refresh_task")
"""Tasks that it restarts in each generation: of these, only a failure counts."""
EVERY = 0.5
"""Seconds between two checks."""
GRACE = 10.0
"""Seconds that the owner of a client has to reopen it before the process ends."""


def find_ended_task(client: object) -> str | None:
    """Return which task of a started consumer or producer has ended, and why; None while all run.

    A client that is closed or not started always gives None. Cheap; may be called from another thread.
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


def check_tasks(client: object) -> None:
    """Check that a client has all its tasks. An owner that reads or writes in a loop calls this in every round.

    Raises:
        KafkaError: a task has ended; the client has to be closed and reopened.

    """
    if (why := find_ended_task(client)) is not None:
        raise KafkaError(why)


async def watch_tasks(clients: Callable[[], Iterable[Any]], every: float = EVERY, grace: float = 0.0) -> str:
    """Wait until a task of one of the clients has ended; return the result of `find_ended_task`.

    `clients` is called at each check, so clients may be added and removed. One that is removed within `grace` seconds
    is not reported.
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
