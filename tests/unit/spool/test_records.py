"""Frames: what is written is read again, and nothing else is taken for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Message
from gateway.spool import records
from gateway.spool.records import Record
from tests.unit.spool.spooling import record

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
RECORDS = st.builds(
    Record,
    stream=TEXT,
    topic=TEXT,
    payload=st.binary(max_size=300),
    received_us=st.integers(-(2**63), 2**63 - 1),
    packet_id=st.none() | st.integers(0, 65_535),
    retain=st.booleans(),
    duplicate=st.booleans(),
    resumed=st.booleans(),
    turn=st.integers(0, 2**63 - 1),
    identity=st.binary(min_size=16, max_size=16),
    user_properties=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
)


def test_a_record_is_a_message() -> None:
    """The path takes records as it takes what comes from the broker."""
    message: Message = record(3)
    assert message.user_properties == (("unit", "°C"),)


@given(found=st.lists(RECORDS, max_size=5), number=st.integers(0, 10**17 - 1), offset=st.integers(0, 2**33))
def test_every_record_survives_the_frame(found: list[Record], number: int, offset: int) -> None:
    """Whatever text, payload and numbers are in it; sizes are told beforehand."""
    bodies = list(map(records.encode, found))
    start = records.seed(number)
    content = b"".join(records.frames(bodies, start, offset))
    assert len(content) == records.size(bodies)
    read = records.valid_frames(content, start, offset)
    assert [records.decode(body) for _, body in read] == found
    marks = {offset + mark.start() - records.MARK_AT for mark in records.MARK.finditer(content)}
    assert marks >= {place for place, _ in read}


@given(found=RECORDS, elsewhere=st.integers(1, 2**31))
def test_a_frame_is_valid_in_its_place_only(found: Record, elsewhere: int) -> None:
    """Neither at another offset nor in another segment."""
    start = records.seed(5)
    content = b"".join(records.frames([records.encode(found)], start, 100))
    assert records.valid_frames(content, start, 100)
    assert records.valid_frames(content, start, 100 + elsewhere) == []
    assert records.valid_frames(content, records.seed(6), 100) == []


def test_a_body_that_is_no_record() -> None:
    """A right checksum over something else does not stop anybody."""
    assert records.decode(b"") is None
    assert records.decode(b"\x93\x01\x02\x03") is None
    assert records.decode(b"\x9c" + b"\xc0" * 20) is None
    assert records.decode(records.encode(record(1))[:-1]) is None
