"""Drain spools without the daemon: what it left behind when it will not run again, or with fewer workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gateway import settings
from gateway.observability.health import Health
from gateway.path import Path as MessagePath
from gateway.supervisor import Supervisor


async def run(options: settings.Settings, folders: Iterable[Path]) -> Counter[str]:
    """Send what is spooled in these folders through the path, one after the other; how it ended, by outcome.

    Databases that are away are waited for.

    Raises:
        StartError: a folder cannot be used, a running daemon has it for instance.
    """
    ended: Counter[str] = Counter()
    for folder in folders:
        spool = options.spool.model_copy(update={"folder": folder})
        ended += await _drain(options.model_copy(update={"spool": spool}))
    return ended


async def _drain(options: settings.Settings) -> Counter[str]:
    path, tasks, stop = MessagePath(options, Health()), Supervisor(), asyncio.Event()
    assert path.drain is not None
    path.open()
    empty = asyncio.create_task(path.drain.until_empty())
    empty.add_done_callback(lambda _task: stop.set())
    try:
        for name, task in path.tasks():
            tasks.start(name, task)
        await tasks.watch(stop)
        return _outcomes(path)
    finally:
        empty.cancel()
        await asyncio.gather(empty, return_exceptions=True)
        await tasks.cancel()
        await path.close()


def _outcomes(path: MessagePath) -> Counter[str]:
    ended: Counter[str] = Counter()
    for tally in path.drained.tallies.values():
        ended.update({outcome.value: count for outcome, count in tally.settled.items() if count})
    return ended
