"""Large messages: decoded beside the event loop, in a batch of their own, and in the order of their topic."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import settings
from gateway.errors import MessageError
from gateway.ingest.waiting import LARGE_BYTES
from gateway.messages import Field
from gateway.outcomes import Reason
from gateway.unreadable import set_apart
from gateway.writer.layouts.document.encoding import take_apart
from tests.support import heavy
from tests.support.batching import NOW_US, a_type, published, settings_for
from tests.support.flow import Flow
from tests.unit.ingest.test_pipeline import learn, message
from tests.unit.ingest.test_plain import Ways

NOW_MS = NOW_US // 1000
TYPED = a_type(Field("t", "float", None, -40.0, 85.0), Field("n", "int"))
PADDING = "x" * LARGE_BYTES
STALL = 0.05
"""Seconds that the event loop may stand still for one message (issue "One device, one log-in, against all others")."""


@pytest.fixture
async def flow() -> Flow:
    """A path without tasks, which knows the devices A and B."""
    made = Flow(settings_for(None, {}, {"name": "named", "topic": "n/{tenant}"}))
    learn(made, "A", "B")
    return made


def large(n: int = 0, **more: Any) -> dict[str, Any]:
    """A reading with a time, in a large message."""
    return {"ts": NOW_MS + n, "n": n, "padding": PADDING, **more}


async def take_large(flow: Flow) -> None:
    """What the task does, until nothing waits."""
    while len(flow.pipeline.in_flight.large):
        await flow.pipeline.take_large(flow.pipeline.in_flight.large.first())
        flow.check_books()


async def test_others_pass_it(flow: Flow) -> None:
    """It waits for its turn, and comes into a batch of its own; what other devices send goes on."""
    flow.take(message(large()), message({"ts": NOW_MS, "n": 1}, "B"), message(b"{", "B"))
    held = flow.pipeline.in_flight
    assert (held.queue.open.numbers, held.queue.open.dead_letter_numbers) == ([1], [2])
    assert [one.number for one in held.large.all()] == [0]
    await take_large(flow)
    assert held.large_queue.open.numbers == [0]
    assert held.queue.open.numbers == [1]


async def test_what_follows_by_its_topic_waits_behind_it(flow: Flow) -> None:
    """Readings without a time get theirs in the order in which they came, also those of the same delivery."""
    flow.take(message({"n": 0, "padding": PADDING}), message({"n": 1}), message({"n": 2}, "B"))
    flow.take(message({"n": 3}), message({"n": 4, "padding": PADDING}), message({"n": 5}))
    held = flow.pipeline.in_flight
    assert held.queue.open.numbers == [2]
    await take_large(flow)
    assert (held.queue.open.numbers, held.large_queue.open.numbers) == ([2, 1, 3, 5], [0, 4])
    batches = (held.queue.open, held.large_queue.open)
    times = {batch.numbers[index]: time_us for batch in batches for index, time_us in batch.untimed.items()}
    assert [times[number] for number in (0, 1, 3, 4, 5)] == sorted(times[n] for n in (0, 1, 3, 4, 5))
    flow.take(message({"n": 6}))
    assert held.queue.open.numbers[-1] == 6  # and none waits any more


async def test_no_two_of_a_delivery_were_received_at_once(flow: Flow) -> None:
    """They are in several batches, committed in any order: of readings of one key the later received is the newer."""
    same = {"ts": NOW_MS, "metrics": {"n": 1}}
    flow.take(message(same), message(large()), message({"ts": NOW_MS, "n": 1}), received_us=NOW_US)
    flow.take(message({"ts": NOW_MS, "n": 2}), received_us=NOW_US + 1)
    await take_large(flow)
    held = flow.pipeline.in_flight
    found = {
        number: received_us
        for batch in (held.queue.open, held.large_queue.open)
        for number, received_us in zip(batch.numbers, batch.received_us, strict=True)
    }
    assert [found[number] - NOW_US for number in range(4)] == [0, 1, 2, 3]


async def test_the_readings_of_one_have_times_without_a_gap(flow: Flow) -> None:
    """A spool keeps the first only. What comes by another topic of the device meanwhile has none of these."""
    flow.take(message([{"n": n, "padding": PADDING[:300]} for n in range(300)]), received_us=NOW_US)
    task = asyncio.create_task(take_large(flow))
    while not task.done():
        flow.take(published("n/acme", {"n": 0, "serial_number": "A"}), received_us=NOW_US)
        await asyncio.sleep(0)
    held = flow.pipeline.in_flight
    times, others = (
        [one.time_us for row in queue.open.rows for one in take_apart(row)]
        for queue in (held.large_queue, held.queue)
    )
    assert times == list(range(times[0], times[0] + 300))
    assert len(others) == len(set(others)) > 1
    assert set(others).isdisjoint(times)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"n":"' + PADDING.encode(), Reason.MALFORMED),
        ([large(), {"ts": NOW_MS, "n": 1, "serial_number": "B"}], Reason.DEVICE_MISMATCH),
        (large(ts=5), Reason.TOO_OLD),
    ],
)
async def test_what_is_refused_is_a_dead_letter(flow: Flow, payload: Any, reason: Reason) -> None:
    """With the reason that a small one has."""
    flow.take(message(payload), message({"n": 1}))
    await take_large(flow)
    (letter,) = flow.pipeline.in_flight.large_queue.open.dead_letters
    assert letter.reason is reason
    assert flow.pipeline.in_flight.queue.open.numbers == [1]


async def test_a_defect_is_told_by_a_dead_letter(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task goes on."""
    flow.take(message(large()))
    monkeypatch.setattr(flow.pipeline.general._intake, "encode_large", lambda *_: 1 / 0)
    await take_large(flow)
    (letter,) = flow.pipeline.in_flight.large_queue.open.dead_letters
    assert letter.reason is Reason.GATEWAY_DEFECT


async def test_its_payload_is_not_looked_at_where_that_is_not_asked_for(flow: Flow) -> None:
    """Of an ignored topic, of an unknown device, of one beyond the bound, of one that was set apart."""
    beyond = flow.options.validation.max_payload_bytes + 1
    flow.take(message(large(), "unknown"), message(b"x" * beyond), set_apart(message(large())))
    held = flow.pipeline.in_flight
    assert (len(held.large), len(held.unresolved)) == (0, 1)
    assert [one.reason for one in held.queue.open.dead_letters] == [Reason.TOO_LARGE, Reason.SET_APART]


async def test_a_device_that_is_forgotten_while_it_waits_is_looked_up(flow: Flow) -> None:
    """As that of a small message is."""
    flow.take(message(large()))
    flow.base.registry.purge("a test")
    await take_large(flow)
    assert [one.number for one in flow.pipeline.in_flight.unresolved.all()] == [0]


async def test_devices_that_the_payload_names(flow: Flow) -> None:
    """Those not in the cache are looked up; then each reading is its device's."""
    flow.take(published("n/acme", [large(serial_number="A"), large(serial_number="C")]))
    await take_large(flow)
    (waits,) = flow.pipeline.in_flight.unresolved.all()
    assert [entry.serial_number for entry in waits.entries] == ["C"]
    devices = learn(flow, "C")
    flow.pipeline.take_again(flow.pipeline.in_flight.unresolved.release(lambda _one: True))
    await take_large(flow)
    (row,) = flow.pipeline.in_flight.large_queue.open.rows
    assert [one.key[-16:] for one in take_apart(row)][1] == devices["C"].id.bytes


@pytest.mark.parametrize("made_of", heavy.payloads(NOW_MS))
async def test_it_becomes_the_same(made_of: str) -> None:
    """As in the event loop: rows, receive times, ids, flags, or the reason."""
    payload = heavy.payloads(NOW_MS)[made_of]
    rules = settings.ValidationSettings(on_old="receive_time")
    ways, beside = Ways(TYPED, rules), Ways(TYPED, rules)
    beside.device = ways.device
    whole, large_one = ways.general(payload), await ways.large(payload)
    if isinstance(whole, MessageError):
        assert isinstance(large_one, MessageError)
        assert (whole.reason, whole.detail) == (large_one.reason, large_one.detail)
    else:
        assert whole == large_one


@pytest.fixture
def frozen() -> Iterator[None]:
    """The collector as in the daemon: it does not walk over all that the tests hold."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("made_of", heavy.payloads(NOW_MS))
async def test_the_event_loop_goes_on(made_of: str) -> None:
    """It stands still for 50 ms of CPU at the most, whatever 1 MiB is made of; the best of three tries."""
    payload, stalls = heavy.payloads(NOW_MS)[made_of], []
    for _ in range(3):
        task = asyncio.create_task(Ways(TYPED).large(payload))
        longest, last = 0.0, time.process_time()
        while not task.done():
            await asyncio.sleep(0)
            now = time.process_time()
            longest, last = max(longest, now - last), now
        stalls.append(longest)
        if longest < STALL:
            return
    raise AssertionError(stalls)


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    "reading", ['{"ts":%d,"metrics":{"t":1}}', '{"t":1}', '{"ts":"2026-11-20T12:00:00.5Z","t":"x"}']
)
def test_what_is_not_large_does_not_take_long(reading: str) -> None:
    """As many readings as fit: the event loop is held for less than 50 ms of CPU; the best of three tries."""
    one = (reading % NOW_MS if "%" in reading else reading) + ","
    payload = f"[{one * (LARGE_BYTES // len(one) - 1)}{one[:-1]}]".encode()
    taken = []
    for _ in range(3):
        began = time.thread_time()
        assert not isinstance(Ways(TYPED).general(payload), MessageError)
        taken.append(time.thread_time() - began)
    assert min(taken) < STALL, taken
