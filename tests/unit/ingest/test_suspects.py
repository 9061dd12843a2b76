"""Ends without a word: the next process takes messages one by one, and knows the one that ended it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import unreadable
from gateway.ingest import suspects as module
from gateway.ingest.suspects import Guard, Suspects
from gateway.ingest.waiting import LARGE_BYTES
from gateway.messages import PACKET_IDS, Delivery, Message
from gateway.outcomes import Reason
from tests.support.batching import published
from tests.support.waiting import eventually_async

SMALL, LARGE = {"n": 1}, {"n": "x" * 5000}


class DeadError(Exception):
    """The process has ended without a word."""


class Route:
    """A path that ends the process by messages whose topic says so, and keeps what it took."""

    def __init__(self) -> None:
        self.paused = False
        self.taken: list[list[str]] = []
        self.firsts: list[int] = []
        self.letters: list[tuple[str, Reason | None]] = []
        self.reading = True
        self.settled = asyncio.Event()
        self.settled.set()

    def take(self, delivery: Delivery) -> None:
        """See above."""
        if any(
            "kill" in message.topic and unreadable.fault(message) is None for message in delivery.messages
        ):
            raise DeadError
        self.taken.append([message.topic for message in delivery.messages])
        self.firsts.append(delivery.first)
        faults = [(message.topic, unreadable.fault(message)) for message in delivery.messages]
        self.letters += [(topic, fault.reason) for topic, fault in faults if fault is not None]

    def idle(self) -> None:
        """Nothing to do."""

    async def wait_settled(self) -> None:
        """Before anything was taken at once, then when the test says so."""
        if self.taken:
            await self.settled.wait()

    def pause(self) -> None:
        """The socket is not read."""
        self.reading = False

    def resume(self) -> None:
        """It is again."""
        self.reading = True


class Process:
    """One process: what it was given, until it ended."""

    def __init__(self, folder: Path) -> None:
        self.suspects, self.path = Suspects(folder), Route()
        self.suspects.open()
        self.guard = Guard(self.suspects, self.path, self.path)
        self.numbers = itertools.count()

    async def take(self, *topics: str, payload: Mapping[str, Any] = SMALL, duplicate: bool = False) -> bool:
        """Deliver these messages at once; False: it died of them."""
        messages: Sequence[Message] = [published(topic, payload, duplicate=duplicate) for topic in topics]
        first = next(self.numbers)
        for _ in messages[1:]:
            next(self.numbers)
        task = asyncio.create_task(self.guard.run())
        self.guard.take(Delivery(messages, first, 0))
        try:
            await eventually_async(lambda: task.done() or not self.guard.busy)
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
        return not isinstance(ended, DeadError)


async def test_ends_in_order_change_nothing(tmp_path: Path) -> None:
    """Deliveries pass whole, in this process and the next; without a folder nothing is looked for."""
    for _ in range(2):
        process = Process(tmp_path)
        assert await process.take("a", "b")
        assert await process.take("c", "d")
        assert process.path.taken == [["a", "b"], ["c", "d"]]
        assert process.suspects.passes
        process.suspects.close()
    assert Suspects(None).passes


async def test_a_message_is_set_apart_after_three_ends(tmp_path: Path) -> None:
    """Killed by one of many: then twice by it alone; then it is a dead letter, unread, and the others pass."""
    assert not await Process(tmp_path).take("a", "kill", "b")
    for _ in range(2):
        second = Process(tmp_path)
        assert not await second.take("a", "kill", "b")
        assert second.path.taken == [["a"]], "one by one, in order"
    third = Process(tmp_path)
    assert await third.take("a", "kill", "b")
    assert (third.path.taken, third.path.firsts) == ([["a"], ["kill"], ["b"]], [0, 1, 2])
    assert third.path.letters == [("kill", Reason.SET_APART)]
    assert third.path.reading
    third.suspects.close()
    fourth = Process(tmp_path)
    assert await fourth.take("a", "kill", "b")
    assert fourth.path.letters == [("kill", Reason.SET_APART)], "devices send the same again"


async def test_what_is_in_hand_when_a_process_is_killed_from_outside_is_not_set_apart(tmp_path: Path) -> None:
    """A careful process always has some message in hand: only the same one again says that it was that."""
    for topic in ("kill 1", "kill 2", "kill 3", "kill 2"):
        assert not await Process(tmp_path).take(topic)
    last = Process(tmp_path)
    assert not last.suspects.is_apart(published("kill 2", SMALL))
    assert not await last.take("kill 2")
    assert Process(tmp_path).suspects.is_apart(published("kill 2", SMALL))


async def test_two_of_them_are_found_one_after_the_other(tmp_path: Path) -> None:
    """Each costs two ends more, and no other message is set apart."""
    ends = 0
    while not await (process := Process(tmp_path)).take("a", "kill 1", "b", "kill 2", "c"):
        ends += 1
        assert ends <= 5
    assert [topic for topic, _ in process.path.letters] == ["kill 1", "kill 2"]
    assert len(process.path.taken) == 5


@pytest.mark.parametrize(
    ("payload", "duplicate"),
    [(LARGE, True), ({"padding": "x" * LARGE_BYTES}, False)],
    ids=["again", "decoded later"],
)
async def test_a_large_one_is_alone_until_it_is_settled(
    tmp_path: Path, payload: Mapping[str, Any], duplicate: bool
) -> None:
    """It may end the process by what is done with it later: killed meanwhile, it is known; once settled, it is not."""
    assert not await Process(tmp_path).take("kill")
    process = Process(tmp_path)
    process.path.settled.clear()
    task = asyncio.create_task(process.take("large", payload=payload, duplicate=duplicate))
    await eventually_async(lambda: process.path.taken)
    assert in_hand(tmp_path)
    process.path.settled.set()
    assert await task
    assert not in_hand(tmp_path)


def in_hand(folder: Path) -> str:
    """What the file says to the next process."""
    found: str = json.loads((folder / "suspects").read_bytes())["in_hand"]
    return found


async def test_care_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many messages as a session can have unacknowledged, or a minute; after more ends in a row later."""
    assert not await Process(tmp_path).take("kill")
    process = Process(tmp_path)
    monkeypatch.setattr(module, "PACKET_IDS", 2)
    assert await process.take("a", "b", "c")
    assert await process.take("d", "e")
    assert process.path.taken[-1] == ["d", "e"]
    monkeypatch.setattr(module, "PACKET_IDS", PACKET_IDS)
    with capture_logs() as logged:
        for _ in range(6):
            assert await Process(tmp_path).take("a")
    seconds = [entry["seconds"] for entry in logged if entry["event"] == "careful"]
    assert seconds == [240, 960, 3840, 14400, 14400, 14400]
    monkeypatch.setattr(module, "_MOST_CAREFUL_SECONDS", 0.0)
    late = Process(tmp_path)
    assert await late.take("a", "b")
    assert late.path.taken == [["a", "b"]]


async def test_a_defect_is_an_end_without_a_word(tmp_path: Path) -> None:
    """The process ends in order, but by an error: by the message that is in hand."""
    for _ in range(3):
        process = Process(tmp_path)
        assert not await process.take("kill")
        process.suspects.keep()
        process.suspects.close()
    third = Process(tmp_path)
    assert await third.take("kill", "a")
    assert third.path.letters == [("kill", Reason.SET_APART)]


async def test_a_file_that_is_damaged_or_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    """Only what was known."""
    (tmp_path / "suspects").write_bytes(b"\xff" * 100)
    process = Process(tmp_path)
    assert await process.take("a", "b")
    process.suspects.close()
    (tmp_path / "suspects").unlink()
    (tmp_path / "suspects").mkdir()
    process = Process(tmp_path)
    assert await process.take("a", "b")
    process.suspects.close()
