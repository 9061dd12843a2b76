"""A tenant has so many chunks made within an hour, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import settings
from gateway.errors import MessageError
from gateway.ingest.new_chunks import NewChunks
from gateway.outcomes import Reason
from tests.support.batching import NOW_US, a_type
from tests.unit.ingest.test_plain import Ways

DAY_US = 86_400_000_000


def refused(chunks: NewChunks, days: Any, tenant: str = "acme") -> bool:
    """Whether readings of these days, counted back from now, are too many."""
    try:
        chunks.admit([NOW_US - day * DAY_US for day in days], tenant)
    except MessageError as error:
        return error.reason is Reason.CHUNK_LIMIT
    return False


@pytest.fixture
def chunks() -> NewChunks:
    """Three an hour; of the last thirty days they are there, in a chunk of twenty days and some of one."""
    made = NewChunks(3)
    today = NOW_US // DAY_US
    some = [((today - day) * DAY_US, (today - day + 1) * DAY_US) for day in range(10)]
    made.learn(DAY_US, [((today - 29) * DAY_US, (today - 9) * DAY_US), *some])
    return made


def test_only_chunks_that_are_not_there_count(chunks: NewChunks) -> None:
    """Once each; what is refused counts for nothing, and costs no other tenant anything."""
    assert not refused(chunks, range(30))
    assert not refused(chunks, (40, 40, 41))
    assert refused(chunks, (50, 51))
    assert not refused(chunks, (40, 41, 60))
    assert refused(chunks, [61])
    assert not refused(chunks, (40, 60))
    assert not refused(chunks, (61, 62, 63), "other")
    assert not refused(chunks, (61, 62, 63))


def test_another_hour_has_others(chunks: NewChunks, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was dropped meanwhile counts anew when it is made again."""
    now = 1e6
    monkeypatch.setattr("gateway.ingest.new_chunks.time.monotonic", lambda: now)
    assert not refused(chunks, (40, 41, 42))
    now += 3599
    assert refused(chunks, [43])
    now += 2
    assert not refused(chunks, (43, 44))
    chunks.learn(DAY_US, [])
    assert refused(chunks, (1, 2))


def test_there_is_no_limit_where_readings_make_no_chunks() -> None:
    """Plain PostgreSQL; nor before it is known which there are."""
    made = NewChunks(1)
    assert not refused(made, range(100))
    made.learn(0, [])
    assert not refused(made, range(100))


def test_a_message_is_admitted_as_a_whole_and_near_ones_always() -> None:
    """Readings within a week are not looked at; neither way lets a far one by."""
    made = NewChunks(2)
    made.learn(DAY_US, [])
    ways = Ways(a_type(), settings.ValidationSettings(), made)

    def sent(*days: float) -> bytes:
        return json.dumps(
            [{"ts": NOW_US // 1000 - int(day * 86_400_000), "metrics": {"t": 1}} for day in days]
        ).encode()

    assert not isinstance(ways.general(sent(*range(7))), MessageError)
    assert isinstance(ways.general(sent(8, 9, 10)), MessageError)
    assert not isinstance(ways.general(sent(8, 9)), MessageError)
    assert isinstance(ways.general(sent(10)), MessageError)
    for day, plain in ((0, True), (6.9, True), (7.1, False), (400, False)):
        assert (ways.fast(sent(day)[1:-1]) is not None) is plain
