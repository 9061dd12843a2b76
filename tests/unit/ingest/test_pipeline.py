"""The first half of the path: from a delivery to a batch, without await. Whole: tests/integration/test_pipeline.py."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import batches
from gateway.errors import MessageError
from gateway.ingest.routes import Preparation
from gateway.messages import Delivery, Device
from gateway.mqtt.frames import PacketReader
from gateway.observability import metrics
from gateway.outcomes import Outcome, Reason
from gateway.unreadable import unreadable
from gateway.writer.layouts.document import encoding
from gateway.writer.layouts.document.encoding import take_apart
from tests.support.batching import NOW_US, a_device, published, settings_for
from tests.support.flow import Flow

NOW_MS = NOW_US // 1000
Reading = Callable[[int], dict[str, Any]]


def learn(flow: Flow, *serials: str) -> dict[str, Device]:
    """These devices of the tenant ``acme`` are known."""
    devices = {serial: a_device(serial) for serial in serials}
    for serial, device in devices.items():
        Preparation(flow.options.validation)(device)
        flow.base.registry.entry("acme", serial).learn(device)
    return devices


@pytest.fixture
async def flow() -> Flow:
    """A path without tasks, which knows the device A: nothing leaves it."""
    made = Flow(settings_for(None, {}, {"name": "quiet", "topic": "q/#", "tenant": "acme", "kind": "ignore"}))
    learn(made, "A")
    return made


def message(payload: Any, device: str = "A", **rest: Any) -> Any:
    """A message of a device of ``acme``."""
    return published(f"t/acme/{device}", payload, **rest)


def flat(n: int) -> dict[str, Any]:
    """A reading that has no fast path."""
    return {"ts": NOW_MS + n, "n": n}


def plain(n: int) -> dict[str, Any]:
    """A reading that has one."""
    return {"ts": NOW_MS + n, "metrics": {"n": n}}


@pytest.mark.parametrize("readings", [(flat, flat, flat), (plain, plain, plain), (plain, flat, plain)])
async def test_a_chunk_becomes_part_of_the_open_batch(flow: Flow, readings: Sequence[Reading]) -> None:
    """In order, encoded, with its bytes counted, whichever way each went; nothing is settled yet."""
    messages = [message(reading(n)) for n, reading in enumerate(readings)]
    flow.take(*messages)
    batch = flow.pipeline.in_flight.queue.open
    assert batch.numbers == [0, 1, 2]
    assert batch.messages == messages
    assert [origin.serial_number for origin in batch.routes] == ["A"] * 3
    assert len(set(batch.received_us)) == 1
    assert [row.data for blob in batch.rows for row in take_apart(blob)] == [
        b'{"n":%d}' % n for n in range(3)
    ]
    assert flow.hand.settled == []
    assert flow.held() == {"telemetry": 3}
    encoded = sum(map(len, batch.rows))
    assert flow.held_bytes == sum(map(batches.held_bytes, messages)) + encoded


async def test_who_became_plain_takes_the_short_way(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages of a topic a delivery holds."""
    full: list[int] = []
    accept = flow.pipeline.general.accept

    def accepted(number: int, *rest: Any) -> bool:
        full.append(number)
        return accept(number, *rest)

    monkeypatch.setattr(flow.pipeline.general, "accept", accepted)
    for first in range(0, 500, 5):
        flow.take(*(message(plain(n)) for n in range(first, first + 5)))
    assert full == [0, 1, 2, 3, 4]


async def test_a_defect_of_the_short_way_costs_nothing(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """The general path takes what the short one fails on."""
    monkeypatch.setattr(encoding, "encode", lambda *_: 1 / 0)
    flow.take(message(plain(0)))
    flow.take(message(plain(1)))
    assert flow.pipeline.in_flight.queue.open.numbers == [0, 1]
    assert flow.pipeline.in_flight.queue.open.dead_letters == []


async def test_what_is_refused_goes_with_the_batch(flow: Flow) -> None:
    """As a dead letter, with its own number; neighbours are not disturbed."""
    flow.take(message({"n": 1}), message(b"{"), message({"n": 3}))
    batch = flow.pipeline.in_flight.queue.open
    assert (batch.numbers, batch.dead_letter_numbers) == ([0, 2], [1])
    (letter,) = batch.dead_letters
    assert (letter.reason, letter.stream, letter.tenant, letter.device) == (
        Reason.MALFORMED, "telemetry", "acme", "A",
    )  # fmt: skip
    assert flow.held() == {"telemetry": 3}


async def test_what_mqtt_could_not_read_goes_with_the_batch(flow: Flow) -> None:
    """Of a stream that takes readings as a dead letter, however plain its payload looks; ignored where all is."""
    torn = [
        unreadable(topic, b'{"n": 2}', 7, duplicate=False, reason=Reason.BAD_PACKET, detail="why")
        for topic in (b"t/acme/A", b"t/acme/\xff", b"q/\xff", b"")
    ]
    flow.take(message({"n": 1}), *torn)
    batch = flow.pipeline.in_flight.queue.open
    assert batch.numbers == [0]
    assert [
        (letter.reason, letter.detail, letter.message.topic, letter.stream) for letter in batch.dead_letters
    ] == [
        (Reason.BAD_PACKET, "why", "t/acme/A", "telemetry"),
        (Reason.BAD_PACKET, "why", "t/acme/\\xff", "telemetry"),
        (Reason.BAD_PACKET, "why", "", "none"),
    ]
    assert flow.ended("quiet") == {Outcome.IGNORED: 1}


async def test_letters_received_together_keep_their_order(flow: Flow) -> None:
    """A microsecond apart, whatever is in them; each has an identity of its own, which a replay tells it by."""
    flow.take(*(message(payload) for payload in (b"", b"{", b"[{},{},", b"")), received_us=NOW_US)
    letters = flow.pipeline.in_flight.queue.open.dead_letters
    assert [letter.received_us - NOW_US for letter in letters] == [0, 1, 2, 3]
    assert len({letter.id for letter in letters}) == 4


async def test_a_message_of_several_devices_comes_to_the_same_times_again() -> None:
    """Live and from the spool, which keeps the time of the first reading only; no device has one time twice."""
    live, drained = (Flow(settings_for(None, {"topic": "g/{tenant}/all"})) for _ in range(2))
    names = [learn(one, "A", "B") for one in (live, drained)]
    payloads = [[{"serial_number": name, "n": 1} for name in told] for told in ("ABB", "A", "ABB", "BA")]
    live.take(*(published("g/acme/all", payload) for payload in payloads), received_us=NOW_US)
    batch = live.pipeline.in_flight.queue.open
    for index, message in enumerate(batch.messages):
        at = batch.untimed[index]
        drained.pipeline.take(Delivery((message,), index, at, replayed=True))
    again = drained.pipeline.in_flight.queue.open
    assert _times(again.rows, names[1]) == _times(batch.rows, names[0])
    for of_device in _times(batch.rows, names[0]).values():
        assert len(set(of_device)) == len(of_device)


def _times(blobs: Sequence[bytes], devices: dict[str, Device]) -> dict[str, list[int]]:
    """By device, in order."""
    found = [row for blob in blobs for row in take_apart(blob)]
    return {
        name: [row.time_us - NOW_US for row in found if row.key.endswith(device.id.bytes)]
        for name, device in devices.items()
    }


async def test_what_is_ignored_is_settled_at_once(flow: Flow) -> None:
    """Nothing has to be durable; the acknowledgement may leave."""
    flow.take(published("q/x", b""), message({"n": 1}), published("q/y", b""))
    assert flow.hand.settled == [0, 2]
    assert flow.ended("quiet") == {Outcome.IGNORED: 2}
    assert flow.held() == {"telemetry": 1}


async def test_who_is_not_known_waits_aside(flow: Flow) -> None:
    """With nothing of its delivery but itself; who is known goes on."""
    flow.take(message({"n": 1}, "B"), message({"n": 2}), message({"n": 3}, "C"))
    room = flow.pipeline.in_flight.unresolved
    assert [(one.number, one.delivery.messages) for one in room.all()] == [(0, ()), (2, ())]
    assert [entry.serial_number for entry in room.entries(10)] == ["B", "C"]
    assert flow.pipeline.in_flight.queue.open.numbers == [1]
    assert flow.held() == {"telemetry": 3}


async def test_a_redelivery_that_only_the_ledger_can_tell_waits(flow: Flow) -> None:
    """DUP in a session that was kept, without a time of its own, or refused; nobody else waits."""
    flow.take(
        message({"n": 1}, duplicate=True),
        message(b"{", duplicate=True),
        message({"ts": NOW_MS, "n": 2}, duplicate=True),
        message({"n": 3}),
        resumed=True,
    )
    assert [one.number for one in flow.pipeline.in_flight.unrecognised.all()] == [0, 1]
    assert flow.pipeline.in_flight.queue.open.numbers == [2, 3]
    flow.take(message({"n": 4}, duplicate=True))
    # In a session that was not kept; messages of two sessions are in two batches.
    assert [batch.numbers for batch in flow.pipeline.in_flight.queue] == [[2, 3], [4]]


async def test_what_comes_at_qos_0_is_counted_apart(flow: Flow) -> None:
    """The broker cannot deliver it again."""
    flow.take(message({"n": 1}, qos=0), message({"n": 2}), message(b"{", qos=0))
    tally = flow.path.routes.tallies["telemetry"]
    assert (tally.received, tally.qos0) == (3, 2)


async def test_the_size_is_looked_at_before_the_payload(flow: Flow) -> None:
    """One byte more than ``max_payload_bytes`` is refused with both numbers, whatever is in it."""
    limit = flow.options.validation.max_payload_bytes
    padding = limit - len('{"n": ""}')
    flow.take(
        message({"n": "x" * padding}), message({"n": "x" * (padding + 1)}), message(b"\xff" * (limit + 1))
    )
    held = flow.pipeline.in_flight
    while len(held.large):
        await flow.pipeline.take_large(held.large.first())
    batch = next(iter(held.large_queue))  # full
    assert batch.numbers == [0]
    letters = [letter for batch in held.large_queue for letter in batch.dead_letters]
    assert [letter.reason for letter in letters] == [Reason.TOO_LARGE] * 2
    assert f"{limit + 1} bytes" in letters[0].detail


async def test_nothing_is_logged_for_a_message(flow: Flow) -> None:
    """Neither good nor bad: what is worth a line is said once a batch."""
    with structlog.testing.capture_logs() as lines:
        flow.take(*(message({"n": n}) for n in range(50)), *(message(b"{") for _ in range(50)))
    assert lines == []


async def test_reading_pauses_once() -> None:
    """At the bound, and it is not said again with every delivery behind it."""
    flow = Flow(settings_for(None, buffer={"max_bytes": 2**21}))
    learn(flow, "A")
    while not flow.hand.paused:
        flow.take(message({"n": "x" * 100_000}))
    flow.take(message({"n": 1}))
    assert flow.hand.turns == ["pause"]
    assert flow.held_bytes >= 2**21


async def test_the_oldest_that_are_held_can_be_shown(flow: Flow) -> None:
    """With what they wait for: what an operator needs to know when nothing moves."""
    flow.take(message({"n": 1}, "B"), message({"n": 2}), message({"n": 3}, duplicate=True), resumed=True)
    flow.take(message(b"{"))
    found = flow.pipeline.in_flight.oldest(3)
    assert [(one["number"], one["topic"], one["waits_for"]) for one in found] == [
        (0, "t/acme/B", "a device look-up"),
        (1, "t/acme/A", "a connection"),
        (2, "t/acme/A", "the ledger"),
    ]


async def test_drain_ends_when_the_last_is_settled(flow: Flow) -> None:
    """Not before, and at once when nothing is held."""
    await asyncio.wait_for(flow.pipeline.wait_settled(), 1)
    flow.take(message({"n": 1}))
    draining = asyncio.create_task(flow.pipeline.wait_settled())
    await asyncio.sleep(0)
    assert not draining.done()
    draining.cancel()


PARTS = st.sampled_from(["good", "timeless", "bad", "unknown", "quiet", "stray", "again"])


def parts(n: int, kinds: list[str]) -> Iterator[Any]:
    """Messages of these kinds."""
    for at, kind in enumerate(kinds, n):
        yield {
            "good": message({"ts": NOW_MS, "n": at}),
            "timeless": message({"n": at}),
            "bad": message(b"{"),
            "unknown": message({"n": at}, f"U-{at % 3}"),
            "quiet": published("q/x", b""),
            "stray": published("x", b""),
            "again": message({"n": at}, duplicate=True),
        }[kind]


@given(st.lists(st.lists(PARTS, min_size=1, max_size=8), max_size=8), st.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_books_balance_after_every_chunk(deliveries: list[list[str]], resumed: bool) -> None:
    """Whatever comes: each message is in one place, held or settled, and its bytes are counted."""
    flow = Flow(settings_for(None, {}, {"name": "quiet", "topic": "q/#", "tenant": "acme", "kind": "ignore"}))
    learn(flow, "A")
    for kinds in deliveries:
        flow.take(*parts(flow.taken, kinds), resumed=resumed)  # looks at the books
        assert flow.held().total() + len(flow.hand.settled) == flow.taken
        assert (flow.held_bytes > 0) == (flow.held().total() > 0)
        held = {one["number"] for one in flow.pipeline.in_flight.oldest(1000)}
        assert held | set(flow.hand.settled) == set(range(flow.taken))


async def test_a_hit_is_a_message_whose_device_the_cache_knew(flow: Flow) -> None:
    """Whichever way it takes and however it ends; none for a topic of no stream or a device that is not known."""
    before = metrics.total(metrics.registry_hits)
    flow.take(message(flat(0)), message(plain(1)), message(b"{"))
    assert metrics.total(metrics.registry_hits) - before == 3
    refused = flow.base.registry.entry("acme", "X")
    refused.refusal, refused.refused_until = Reason.UNKNOWN_DEVICE, float("inf")
    flow.take(message(plain(2), device="X"), published("stray", b"{}"), published("q/1", b"{}"))
    flow.take(message(plain(3), device="not-looked-up"))
    assert metrics.total(metrics.registry_hits) - before == 3


async def test_every_reading_is_a_row(flow: Flow) -> None:
    """What fills a batch is counted in rows, of either way, and a dead letter is one."""
    flow.take(message([flat(0), flat(1), flat(2)]), message(plain(3)), message(b"{"))
    flow.take(message(plain(4)))
    batch = flow.pipeline.in_flight.queue.open
    assert batch.row_count == 6
    assert batch.row_bytes == sum(map(len, batch.rows)) + 1 + len(batch.dead_letters[0].message.topic)


def refusals() -> set[int]:
    """The errors of messages that are in memory, by identity."""
    return {id(one) for one in gc.get_objects() if isinstance(one, MessageError)}


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"\xff",
        b"[]",
        {"ts": 1, "metrics": {}},
        {"serial_number": "B", "n": 1},
        b"x" * 2**21,
        None,
    ],
)
async def test_what_is_refused_is_free_once_it_is_settled(flow: Flow, bad: Any) -> None:
    """Kept in circles until the collector came, 10 000 dead letters of 60 KB took 1.3 GB."""
    large = unreadable(b"t", b"", 2, duplicate=False, reason=Reason.TOO_LARGE, detail="large")
    gc.collect()
    gc.disable()
    before = refusals()
    try:
        flow.take(large if bad is None else message(bad))
        assert len(flow.pipeline.in_flight.queue.open.dead_letters) == 1
        assert refusals() <= before
    finally:
        gc.enable()


async def test_no_message_costs_more_than_is_counted() -> None:
    """Else ``buffer.max_bytes`` is no bound: 57 000 of unknown devices took 110 MiB, and were counted as 55.

    Deferred, and as dead letters; each of a topic of its own, whose route and entry nothing else holds.
    """
    flow, count = Flow(settings_for(None)), 10_000
    raw = [
        published(f"t/acme/ghost-{n}", {"ts": NOW_MS, "metrics": {"t": 1}}, packet_id=1 + n).write()
        for n in range(count)
    ]
    read = PacketReader(2**20).feed
    tracemalloc.start()
    try:
        for at in range(0, count, 1000):
            flow.take(*read(b"".join(raw[at : at + 1000])).messages)
        deferred = traced(), flow.held_bytes
        queue = flow.pipeline.in_flight.unresolved
        assert len(queue) == count
        for entry in queue.entries(count):
            entry.refusal, entry.refused_until = Reason.UNKNOWN_DEVICE, float("inf")
        del entry
        flow.pipeline.take_again(queue.release(lambda _: True))
        assert len(queue) == 0
        letters = traced(), flow.held_bytes
    finally:
        tracemalloc.stop()
    for cost, counted in (deferred, letters):
        assert 0.5 * counted < cost < counted, (cost / count, counted / count)


def traced() -> int:
    """Bytes that are held now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
