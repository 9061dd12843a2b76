"""A path for one job of a command: it ends when the job is done, or with an error that says what to mend.

The daemon waits for ever for what is away or must be mended. A command that a person or a script waits for does not:
errors that an operator must mend end it at once, servers that are away are waited for :data:`PATIENCE` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway import settings
from gateway.ingest.assembly import Foundation, IngestPath
from gateway.observability.health import ComponentState, Health
from gateway.tasks import TaskGuard

PATIENCE = 60.0
"""Seconds that a server that is away is waited for."""

Tell = Callable[[str], None]
"""Called a few times a second with what is waited for; with an empty text when nothing is."""

_TELL_SECONDS = 0.2


def for_a_job(options: settings.Settings) -> settings.Settings:
    """The same settings, with time for slow statements."""
    databases = {name: database.for_a_job() for name, database in options.databases}
    return options.model_copy(update={"databases": options.databases.model_copy(update=databases)})


async def run(base: Foundation, path: IngestPath, job: Coroutine[Any, Any, None], tell: Tell) -> None:
    """Do the job with the tasks of the path and its foundation beside it, then close both.

    Raises:
        StoreError: a database must be mended, or was away for too long.
        Exception: what the job or a task raised.
    """
    tasks, stop = TaskGuard(), asyncio.Event()
    work = asyncio.create_task(job, name="job")
    work.add_done_callback(lambda _task: stop.set())
    try:
        for name, task in (*base.tasks, *path.tasks):
            tasks.start(name, task())
        tasks.start("tell", _tell(base.health, tell))
        await tasks.watch(stop)
        await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await tasks.cancel()
        await path.close()
        await base.close()


async def _tell(health: Health, tell: Tell) -> None:
    while True:
        components = health.as_dict()["components"].values()
        waits = (
            one["detail"]
            for one in components
            if one["state"] in (ComponentState.WAITING, ComponentState.FAILED)
        )
        tell("; ".join(waits))
        await asyncio.sleep(_TELL_SECONDS)
