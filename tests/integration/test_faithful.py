"""What is stored is what was sent, as PostgreSQL itself compares it; on both engines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway import decoders
from gateway.decoders import Limits
from gateway.writer.copy import Writer
from gateway.writer.layouts.document import encoding
from tests.support.batching import NOW_US, Filling, a_device
from tests.support.written import Table, written
from tests.unit.decoders.test_json import LARGEST, METRICS

decode = decoders.build("json", Limits())
UNEQUAL = """
SELECT sent.n, kept.data, kept.metadata
FROM unnest($2::bigint[], $3::text[], $4::text[]) AS sent (n, data, metadata)
LEFT JOIN telemetry AS kept ON kept.device_id = $1 AND kept.time = $5::timestamptz + sent.n * interval '1 us'
WHERE (kept.data, kept.metadata) IS DISTINCT FROM (sent.data::jsonb, sent.metadata::jsonb)
"""

READINGS = st.lists(st.tuples(METRICS, st.none() | METRICS), min_size=1, max_size=20)
EDGES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"n": value}, None)
    for value in (
        2**53 + 1,
        2**63,
        -(2**63) - 1,
        LARGEST,
        -LARGEST,
        10**308,
        5e-324,
        1.7976931348623157e308,
        0.1,
        -0.0,
    )
]


@given(READINGS, st.booleans())
@example(EDGES, True)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_json_is_stored_as_it_was_sent(
    writer: Writer,
    table: Table,
    readings: list[tuple[dict[str, Any], dict[str, Any] | None]],
    ascii_only: bool,
) -> None:
    """Every value, big integers to the last digit, in data and metadata: equal as jsonb."""
    device, filling = a_device(), Filling()
    texts = [
        tuple(None if part is None else json.dumps(part, ensure_ascii=ascii_only) for part in reading)
        for reading in readings
    ]
    for n, (data, metadata) in enumerate(texts):
        payload = f'{{"metrics": {data}, "metadata": {metadata or "null"}}}'
        (reading,) = decode(payload.encode())
        encoded = encoding.encode(NOW_US + n, device.columns, reading.metrics, reading.metadata)
        filling.message(device, encoded, payload)
    await written(writer, filling.batch)
    sent = [text[0] for text in texts], [text[1] for text in texts]
    now = await table.fetchval("SELECT to_timestamp($1::bigint)", NOW_US // 1_000_000)
    assert await table.fetch(UNEQUAL, device.id, list(range(len(texts))), *sent, now) == []


@pytest.mark.parametrize(
    "micros", [-62_135_596_800_000_000, -1, 0, 946_684_800_000_000, 253_402_300_799_999_999]
)
async def test_any_time_that_is_decoded_can_be_stored_and_met_again(
    writer: Writer, table: Table, micros: int
) -> None:
    """From the year 1 to 9999, where the policies keep it; also by way of the staging table."""
    device, first, second = a_device(), Filling(), Filling()
    first.timed(device, micros, {"a": 1})
    second.timed(device, micros, {"b": 2})
    await written(writer, first.batch)
    await written(writer, second.batch)
    found = await table.fetch(
        "SELECT extract(epoch FROM time) * 1000000 AS micros, data FROM telemetry WHERE device_id = $1",
        device.id,
    )
    assert [(int(row["micros"]), row["data"]) for row in found] == [(micros, '{"a": 1, "b": 2}')]
