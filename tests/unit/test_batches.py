"""A batch: messages that go to the database together."""

from __future__ import annotations

import sys
import uuid

from gateway import batches
from gateway.batches import Batch
from gateway.errors import MessageError
from gateway.messages import Delivery, Session
from gateway.outcomes import Reason
from gateway.writer.dead_letters import Replayed
from gateway.writer.layouts.document import encoding
from tests.support.batching import NOW_US, Filling, StubRoute, a_device, published

REFUSED = MessageError(Reason.REFUSED_BY_DATABASE, "no")


def test_an_empty_batch() -> None:
    """It holds nothing, and no delivery number is less than its least."""
    batch = Batch()
    assert (len(batch), batch.size, batch.count_by_stream()) == (0, 0, {})
    assert batch.oldest() > 2**62


def test_readings_and_letters_are_counted_together() -> None:
    """By stream, by number, and in bytes."""
    filling = Filling()
    for n in range(3):
        filling.timed(a_device(), NOW_US + n, {"n": n})
    other = StubRoute()
    other.stream_name = "other"
    filling.letter(published("t", b"x" * 100), origin=other)
    batch = filling.batch
    assert len(batch) == 4
    assert batch.count_by_stream() == {"telemetry": 3, "other": 1}
    numbers = [*batch.numbers, *batch.dead_letter_numbers]
    assert batch.oldest() == min(numbers)
    assert batch.size >= 100 + batches.OVERHEAD_BYTES


def test_what_is_picked_is_of_the_same_session() -> None:
    """Else the ledger of what was held back would name no session, and a later process would store it twice."""
    filling = Filling()
    filling.timed(a_device(), NOW_US, {"n": 1})
    batch = filling.batch
    batch.session, batch.turn, batch.spooled = Session(b"s" * 16), 7, True
    picked = batch.pick([0], [])
    assert (picked.session, picked.turn, picked.spooled) == (batch.session, 7, True)


def test_a_refused_message_keeps_who_and_when() -> None:
    """Its letter says what the topic says, and when it was received; for a reading without a time, its key."""
    filling = Filling()
    timed = filling.timed(a_device("A"), NOW_US + 5, {"n": 1})
    untimed = filling.untimed(a_device("B"), NOW_US + 7, {"n": 1})
    found = [filling.batch.dead_letter_for(index, REFUSED) for index in (timed, untimed)]
    assert [(one.device, one.tenant, one.reason, one.detail) for one in found] == [
        ("A", "acme", Reason.REFUSED_BY_DATABASE, "no"),
        ("B", "acme", Reason.REFUSED_BY_DATABASE, "no"),
    ]
    assert [one.received_us - NOW_US for one in found] == [0, 7]
    assert [one.message for one in found] == filling.batch.messages


def test_a_letter_has_one_identity_however_often_it_is_made() -> None:
    """So that writing it again after a lost answer changes nothing; no two messages share one."""
    message, origin = published("t", b"{"), StubRoute()
    first, again, other = (
        batches.dead_letter(number, message, origin, NOW_US, REFUSED) for number in (7, 7, 8)
    )
    assert first.id == again.id != other.id
    assert isinstance(first.id, uuid.UUID)
    assert not first.replay_failed


def test_a_replayed_letter_is_the_letter_it_was() -> None:
    """Its row is noted, not written anew."""
    id_ = uuid.uuid4()
    message = Replayed("t", b"{", id_, NOW_US)
    made = batches.dead_letter(7, message, StubRoute(), NOW_US, REFUSED)
    assert (made.id, made.replay_failed) == (id_, True)
    assert batches.dead_letter_before(message) == id_
    assert batches.dead_letter_before(published("t", b"{")) is None


def test_the_readings_of_one_device_date_no_other() -> None:
    """Times are a key's own: a million readings of one are a second of that one alone. Those gone by are forgotten."""
    own = batches.UniqueReceiveTimesByKey()
    assert [own.next("loud", NOW_US, 10**6) for _ in range(3)] == [NOW_US, NOW_US + 10**6, NOW_US + 2 * 10**6]
    assert own.next("quiet", NOW_US) == NOW_US
    for number in range(2 * batches._MOST_KEYS):
        own.next(number, NOW_US + number)
    assert len(own._by_key) <= batches._MOST_KEYS
    assert own.next("loud", NOW_US) == NOW_US + 3 * 10**6


def test_all_that_is_held_counts() -> None:
    """Topic and properties too, one by one and as a delivery: an empty property is a tuple of two texts in memory."""
    device, filling = a_device(), Filling()
    plain = published("t", b"x")
    dear = published("t" * 1000, b"x", user_properties=[("", "")] * 100)
    assert batches.held_bytes(dear) > batches.held_bytes(plain) + 999 + 100 * 2 * sys.getsizeof(("", ""))
    row = encoding.encode(NOW_US, device.columns, {"t": 1}, None)
    filling.batch.add_all(Delivery((plain, dear), 0, NOW_US), [StubRoute(), StubRoute()], [row, row], {})
    one_by_one = Batch()
    for message in (plain, dear):
        one_by_one.add(0, message, StubRoute(), NOW_US, row)
    assert filling.batch.size == one_by_one.size == sum(map(batches.held_bytes, (plain, dear))) + 2 * len(row)
