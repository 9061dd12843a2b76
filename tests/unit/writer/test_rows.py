"""Rows of PostgreSQL's binary COPY. Against a server: tests/integration/test_writer.py."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Device
from gateway.writer import rows
from gateway.writer.layouts.document import encoding
from tests.support.batching import ANYTHING_GOES
from tests.unit.decoders.test_json import METRICS

MICROS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
READINGS = st.lists(st.tuples(MICROS, st.uuids(), METRICS, st.none() | METRICS), min_size=1, max_size=5)


def columns(id_: uuid.UUID, tenant: uuid.UUID) -> bytes:
    """Of a device with these ids."""
    return rows.device_columns(Device(id_, tenant, "A", "acme", ANYTHING_GOES))


def test_a_row_as_the_manual_draws_it() -> None:
    """Count, then length and value of each field: timestamptz, uuid, uuid, jsonb, and jsonb and timestamptz or NULL."""
    one, other = uuid.UUID(int=1), uuid.UUID(int=2)
    assert encoding.encode(946_684_800_000_001, columns(one, other), {"a": 1}, None) == bytes.fromhex(
        "0006"
        "00000008 0000000000000001"
        "00000010 00000000000000000000000000000001"
        "00000010 00000000000000000000000000000002"
        "00000008 01 7b2261223a317d"
        "ffffffff"
        "ffffffff"
    )
    assert encoding.encode(
        946_684_800_000_000, columns(one, other), {}, {"b": 2}, 946_684_800_000_003
    ).endswith(bytes.fromhex("00000003 01 7b7d 00000008 01 7b2262223a327d 00000008 0000000000000003"))


@given(READINGS, st.uuids())
def test_what_is_taken_apart_can_be_joined(
    readings: list[tuple[int, uuid.UUID, dict[str, Any], dict[str, Any] | None]], tenant: uuid.UUID
) -> None:
    """Any rows, one behind the other, come out as they went in."""
    encoded = [
        encoding.encode(at, columns(id_, tenant), data, metadata) for at, id_, data, metadata in readings
    ]
    apart = list(encoding.take_apart(b"".join(encoded)))
    assert [row.joined() for row in apart] == encoded
    for row, (at, id_, data, metadata) in zip(apart, readings, strict=True):
        assert row.time_us == at
        assert row.key == rows.key_of(at, id_.bytes)
        assert row.data == rows.to_json(data)
        assert row.metadata == (None if metadata is None else rows.to_json(metadata))


@given(MICROS, MICROS, st.uuids(), METRICS)
def test_a_row_at_another_time(at: int, then: int, id_: uuid.UUID, data: dict[str, Any]) -> None:
    """Only its time and key change."""
    (row,) = encoding.take_apart(encoding.encode(at, columns(id_, id_), data, {"m": 1}))
    assert row.at(then).joined() == encoding.encode(then, columns(id_, id_), data, {"m": 1})
    assert row.at(then).key == rows.key_of(then, id_.bytes)
    assert row.at(then).at(at) == row


@given(st.lists(MICROS, min_size=2), st.uuids())
def test_keys_of_a_device_sort_by_time_after_2000(micros: list[int], id_: uuid.UUID) -> None:
    """Rows that step aside are moved in the order of their keys."""
    late = sorted(at for at in micros if at >= 946_684_800_000_000)
    keys = [rows.key_of(at, id_.bytes) for at in late]
    assert sorted(keys) == keys
