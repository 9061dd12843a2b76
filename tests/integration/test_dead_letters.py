"""Dead letters in the database, on both engines: found by what they are, page by page, and noted when replayed."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.outcomes import Reason
from gateway.writer import dead_letters, replays
from gateway.writer.dead_letters import Count, Selection
from tests.support.written import Table

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


class Letters:
    """Dead letters of a test's own stream."""

    def __init__(self, table: Table) -> None:
        self.table, self.stream = table, f"s-{uuid.uuid4().hex[:12]}"

    async def add(self, received_at: dt.datetime = NOON, **columns: Any) -> uuid.UUID:
        """Enter one; its id."""
        row = {
            "id": uuid.uuid4(), "received_at": received_at, "stream": self.stream, "topic": "t/acme/A",
            "payload": b"{", "reason": "malformed", "detail": "not JSON", "tenant": "acme", "device": "A",
            "qos": 1, "retained": False, "properties": None, **columns,
        }  # fmt: skip
        places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await self.table.execute(
            f"INSERT INTO dead_letters ({', '.join(row)}) VALUES ({places})", *row.values()
        )
        found: uuid.UUID = row["id"]
        return found

    async def find(self, limit: int = 100, before: Any = None, **chosen: Any) -> list[uuid.UUID]:
        """The ids found, of our stream unless another is asked for."""
        selection = Selection(**{"stream": self.stream, **chosen})
        found = await dead_letters.find(self.table, selection, limit=limit, before=before)
        assert await dead_letters.count(self.table, selection) >= len(found)
        return [record["id"] for record in found]

    async def get(self, id_: uuid.UUID) -> Mapping[str, Any]:
        """The one with this id."""
        (found,) = await dead_letters.find(self.table, Selection(ids=[id_], stored=True), limit=2)
        return found


@pytest.fixture
def letters(table: Table) -> Letters:
    """None yet."""
    return Letters(table)


async def test_the_newest_come_first(letters: Letters) -> None:
    """So a list shows what happened last; it ends where it is told to."""
    ids = [await letters.add(NOON + n * HOUR) for n in (2, 0, 1)]
    assert await letters.find() == [ids[0], ids[2], ids[1]]
    assert await letters.find(limit=2) == [ids[0], ids[2]]


async def test_in_the_order_of_coming(letters: Letters) -> None:
    """For a replay: the oldest first, page by page, leaving out as many as it is told."""
    ids = [await letters.add(NOON + HOUR * (n // 2)) for n in range(6)]
    chosen = Selection(stream=letters.stream)
    first = await dead_letters.in_order(letters.table, chosen, limit=3, skip=1)
    rest = await dead_letters.in_order(letters.table, chosen, limit=3, after=first[-1])
    found = [record["id"] for record in (*first, *rest)]
    assert found == list(reversed(await letters.find()))[1:]
    assert set(found[1:]) == set(ids[2:])


async def test_every_filter_selects(letters: Letters) -> None:
    """By reason, device, time, ids and stream, and by several at once."""
    old = await letters.add(NOON - HOUR)
    other_reason = await letters.add(reason="unknown_device")
    other_device = await letters.add(NOON + HOUR, device="B")
    assert await letters.find(reason="unknown_device") == [other_reason]
    assert await letters.find(device="B") == [other_device]
    assert await letters.find(since=NOON) == [other_device, other_reason]
    assert await letters.find(since=NOON + dt.timedelta(microseconds=1)) == [other_device]
    assert await letters.find(ids=[old, other_device, uuid.uuid4()]) == [other_device, old]
    assert await letters.find(ids=[]) == []
    assert await letters.find(stream=f"{letters.stream}-other") == []
    assert await letters.find(reason="malformed", device="A", since=NOON - HOUR) == [old]
    assert await letters.find(reason="unknown_device", device="B") == []
    assert await letters.find(until=NOON) == [old]
    assert await letters.find(since=NOON, until=NOON + HOUR) == [other_reason]
    foreign = await letters.add(NOON - 2 * HOUR, tenant="globex")
    assert await letters.find(tenant="globex") == [foreign]
    assert await letters.find(tenant="globex", since=NOON) == []


async def test_counted_by_reason(letters: Letters) -> None:
    """The most frequent first, with the first and the last time; the filters hold here too."""
    for hour in range(3):
        await letters.add(NOON + hour * HOUR, reason="unknown_device", tenant=f"t{hour}")
    await letters.add(NOON)
    chosen = Selection(stream=letters.stream)
    assert await dead_letters.by_reason(letters.table, chosen) == [
        Count("unknown_device", 3, NOON, NOON + 2 * HOUR),
        Count("malformed", 1, NOON, NOON),
    ]
    some = Selection(stream=letters.stream, tenant="t1")
    assert await dead_letters.by_reason(letters.table, some) == [
        Count("unknown_device", 1, NOON + HOUR, NOON + HOUR)
    ]
    assert await dead_letters.by_reason(letters.table, Selection(stream=f"{letters.stream}-no")) == []


async def test_what_a_replay_has_stored_is_out_of_sight(letters: Letters) -> None:
    """Until it is asked for; what failed again is still to be dealt with."""
    waiting, failed = await letters.add(), await letters.add(NOON + HOUR)
    stored, duplicate = await letters.add(NOON + 2 * HOUR), await letters.add(NOON + 3 * HOUR)
    await letters.table.execute(
        "UPDATE dead_letters SET replay_outcome = 'dead_lettered' WHERE id = $1", failed
    )
    assert await replays.enter(letters.table, {0: stored}) == set()
    await letters.table.execute(
        "UPDATE dead_letters SET replay_outcome = 'duplicate' WHERE id = $1", duplicate
    )
    assert await letters.find() == [failed, waiting]
    assert await letters.find(stored=True) == [duplicate, stored, failed, waiting]
    assert await dead_letters.count(letters.table, Selection(stream=letters.stream)) == 2


async def test_pages_follow_each_other_without_gap(letters: Letters) -> None:
    """Also where many were received in the same microsecond, and while others come and go."""
    ids = {await letters.add(NOON + HOUR * (n // 7)) for n in range(20)}
    seen: list[uuid.UUID] = []
    last = None
    for page in itertools.count():
        found = await dead_letters.find(letters.table, Selection(stream=letters.stream), limit=3, before=last)
        if not found:
            break
        seen += [record["id"] for record in found]
        last = found[-1]
        await replays.enter(letters.table, {0: last["id"]})
        await letters.add(NOON + 100 * HOUR + HOUR * page)
    assert (len(seen), set(seen)) == (20, ids)


async def test_a_replay_is_noted(letters: Letters) -> None:
    """How often, when last, and how it ended; what is stored once is neither noted again nor called new."""
    id_, gone = await letters.add(), uuid.uuid4()
    before = await letters.get(id_)
    assert (before["replays"], before["replayed_at"], before["replay_outcome"]) == (0, None, None)
    await dead_letters.note_failed(letters.table, id_, Reason.REFUSED_BY_DATABASE, "no")
    failed = await letters.get(id_)
    assert (failed["replays"], failed["replay_outcome"], failed["detail"]) == (1, "dead_lettered", "no")
    assert await replays.enter(letters.table, {7: id_, 8: gone}) == set()
    assert await replays.enter(letters.table, {7: id_, 8: gone}) == {7}
    after = await letters.get(id_)
    assert (after["replays"], after["replay_outcome"]) == (2, "stored")
    assert after["replayed_at"] == await letters.table.fetchval(
        "SELECT max(replayed_at) FROM dead_letters WHERE stream = $1", letters.stream
    )


async def test_a_letter_is_the_message_it_was(letters: Letters) -> None:
    """Topic, bytes, user properties and receive time to the microsecond; without packet id, retain or DUP."""
    at = NOON + dt.timedelta(microseconds=1)
    properties = json.dumps([["id", "m-1"], ["id", "m-2"], ["°", ""]])
    id_ = await letters.add(at, topic="t/°/A", payload=b"\x00\xff", properties=properties, retained=True)
    message = dead_letters.as_message(await letters.get(id_))
    assert (message.topic, message.payload, message.dead_letter_id) == ("t/°/A", b"\x00\xff", id_)
    assert list(message.user_properties) == [("id", "m-1"), ("id", "m-2"), ("°", "")]
    assert dt.datetime.fromtimestamp(message.received_us / 1_000_000, dt.UTC) == at
    assert (message.packet_id, message.retain, message.duplicate) == (None, False, False)
    plain = dead_letters.as_message(await letters.get(await letters.add()))
    assert list(plain.user_properties) == []
