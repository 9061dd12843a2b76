"""Named tasks with one watcher, and the signals that stop a daemon."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.tasks import Signals, TaskGuard


async def for_ever() -> None:
    """Never ends by itself."""
    await asyncio.Event().wait()


async def dies() -> None:
    """Dies at once."""
    raise ZeroDivisionError("a defect")


async def returns() -> None:
    """Has nothing more to do."""


@pytest.fixture
def stop() -> asyncio.Event:
    """Set when the daemon should stop."""
    return asyncio.Event()


async def test_it_watches_until_told_to_stop(stop: asyncio.Event) -> None:
    """And leaves the tasks running: stopping them has an order of its own."""
    tasks = TaskGuard()
    tasks.start("one", for_ever())
    watching = asyncio.create_task(tasks.watch(stop))
    await asyncio.sleep(0)
    assert not watching.done()
    stop.set()
    await asyncio.wait_for(watching, 5)
    assert "one" in {task.get_name() for task in asyncio.all_tasks()}
    await tasks.cancel()
    assert "one" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_the_death_of_a_task_is_never_silent(stop: asyncio.Event) -> None:
    """What it died of comes out of the watch, with the task's name; the others can still be ended in order."""
    tasks = TaskGuard()
    tasks.start("steady", for_ever())
    tasks.start("fragile", dies())
    with pytest.raises(ZeroDivisionError) as died:
        await asyncio.wait_for(tasks.watch(stop), 5)
    assert "in the task 'fragile'" in died.value.__notes__
    await tasks.cancel()


async def test_a_task_that_returns_is_let_go(stop: asyncio.Event) -> None:
    """It had nothing more to do; the watch goes on over the others."""
    tasks = TaskGuard()
    tasks.start("short", returns())
    tasks.start("steady", for_ever())
    watching = asyncio.create_task(tasks.watch(stop))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not watching.done()
    stop.set()
    await asyncio.wait_for(watching, 5)
    await tasks.cancel()


async def test_all_that_die_at_once_are_retrieved(stop: asyncio.Event) -> None:
    """The first is told; none of the others is reported by the event loop as forgotten."""
    tasks = TaskGuard()
    for n in range(3):
        tasks.start(f"fragile-{n}", dies())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(tasks.watch(stop), 5)
    await tasks.cancel()


async def test_cancel_waits_for_the_last_words(stop: asyncio.Event) -> None:
    """Tasks may clean up; cancel returns when they have."""
    told = []

    async def tidy() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            told.append("tidied")

    tasks = TaskGuard()
    tasks.start("tidy", tidy())
    await asyncio.sleep(0)
    await tasks.cancel()
    assert told == ["tidied"]
    await tasks.cancel()
    stop.set()
    await asyncio.wait_for(tasks.watch(stop), 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks_the_second_insists(number: signal.Signals) -> None:
    """Either of both, in any mixture."""
    signals = Signals()
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(signals.stop.wait(), 5)
        assert not signals.at_once.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(signals.at_once.wait(), 5)
    finally:
        for one in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(one)
