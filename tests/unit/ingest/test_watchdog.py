"""Nothing moves although everything should."""

from __future__ import annotations

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from gateway.ingest.stall import StallWatchdog
from gateway.observability.health import ComponentState, Health
from gateway.outcomes import Outcome, Tally

LIMIT = 60.0
HANGS = """
import asyncio, contextlib, threading
from gateway.ingest.stall import end_when_hung
async def main():
    task = asyncio.create_task(end_when_hung({limit}))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.5)
    threading.Event().wait({blocks})
    task.cancel()
asyncio.run(main())
print("goes on")
"""


@pytest.mark.parametrize(("limit", "blocks", "ends"), [(0.2, 30, True), (0.2, 0, False), (None, 0.5, False)])
def test_a_process_whose_event_loop_stands_still_ends(limit: float | None, blocks: float, ends: bool) -> None:
    """With exit code 1 and the place where it stood; a loop that comes back, and no limit, end nothing."""
    code = HANGS.format(limit=limit, blocks=blocks)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, "in main" in done.stderr, done.stdout) == (
        ends,
        ends,
        "" if ends else "goes on\n",
    )


class Scene:
    """A path that holds one message, with its servers up, and what the watchdog did about it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, object]] = [{"number": 7}]
        self.work: object = 0
        self.tally = Tally()
        self.health = Health()
        self.reasons: list[str] = []
        for name in ("metadata", "mqtt", "timeseries"):
            self.health.component(name).ready()
        self.watchdog = StallWatchdog(self, self, {"telemetry": self.tally}, self.health, limit=LIMIT)
        self.watchdog.look(0)

    def oldest(self, count: int) -> list[dict[str, object]]:
        """What is held."""
        return self.messages[:count]

    def progress_marker(self) -> object:
        """How far the batches under way are."""
        return self.work

    def reconnect(self, reason: str) -> None:
        """It was asked for."""
        self.reasons.append(reason)

    @property
    def state(self) -> ComponentState:
        """Of the component."""
        return self.health.component("progress").state


@pytest.fixture
def scene() -> Scene:
    """Looked at once, at second 0."""
    return Scene()


def test_nothing_for_too_long_is_told_and_the_connection_made_anew(scene: Scene) -> None:
    """Once each time that the limit is over."""
    scene.watchdog.look(LIMIT - 1)
    assert scene.state is ComponentState.READY
    scene.watchdog.look(LIMIT)
    assert (scene.state, len(scene.reasons)) == (ComponentState.FAILED, 1)
    scene.watchdog.look(LIMIT + 1)
    assert len(scene.reasons) == 1
    scene.watchdog.look(2 * LIMIT)
    assert len(scene.reasons) == 2


def test_a_settled_message_is_progress(scene: Scene) -> None:
    """However it ended; and what was failed is ready again."""
    scene.watchdog.look(LIMIT)
    scene.tally.settled[Outcome.DUPLICATE] += 1
    scene.watchdog.look(LIMIT + 1)
    assert scene.state is ComponentState.READY
    scene.watchdog.look(2 * LIMIT)
    assert len(scene.reasons) == 1


def test_a_batch_that_is_halved_is_progress(scene: Scene) -> None:
    """The isolation of many bad messages takes its time, and settles none of them before the last."""
    for second in range(int(3 * LIMIT)):
        scene.work = second
        scene.watchdog.look(second)
    assert scene.reasons == []


def test_where_no_connection_can_be_made_anew_it_is_told_only(scene: Scene) -> None:
    """The drain of a spool has a component of its own, and needs no broker."""
    scene.health.component("mqtt").waiting("connection refused")
    tallies = {"telemetry": scene.tally}
    servers = ("metadata", "timeseries")
    watchdog = StallWatchdog(scene, None, tallies, scene.health, limit=LIMIT, name="drain", servers=servers)
    with capture_logs() as told:
        watchdog.look(0)
        watchdog.look(LIMIT)
    assert scene.health.component("drain").state is ComponentState.FAILED
    assert [(line["what"], line["oldest"]) for line in told] == [("drain", scene.messages)]
    scene.tally.settled[Outcome.STORED] += 1
    watchdog.look(LIMIT + 1)
    assert scene.health.component("drain").state is ComponentState.READY


def test_no_progress_is_asked_without_messages_or_without_servers(scene: Scene) -> None:
    """Then there is nothing to wait for, or it is known what is waited for."""
    scene.messages.clear()
    scene.watchdog.look(LIMIT)
    scene.messages.append({"number": 8})
    scene.health.component("timeseries").waiting("connection refused")
    scene.watchdog.look(2 * LIMIT)
    assert scene.reasons == []
