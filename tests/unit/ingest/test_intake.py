"""From a message to its rows: what is flagged stands beside the data, what is refused is named."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway import settings
from gateway.errors import MessageError
from gateway.messages import DeviceType, Field
from gateway.outcomes import Reason
from gateway.writer.layouts.document import encoding
from tests.support import heavy
from tests.support.batching import NOW_US, a_type
from tests.unit.ingest.test_plain import Ways

NOW_MS = NOW_US // 1000
SECONDS = 0.25
TYPED = a_type(Field("t", "float", None, -40.0, 85.0), Field("n", "int"))
STRICT = a_type(Field("t", "float", None, -40.0, 85.0), violations="reject")


def stored(payload: Any, kind: DeviceType, **rules: Any) -> list[tuple[int, Any, Any]]:
    """Time, data and metadata of the rows that a message becomes."""
    encoded = Ways(kind, settings.ValidationSettings(**rules)).general(json.dumps(payload).encode())
    assert not isinstance(encoded, MessageError), encoded
    return [
        (row.time_us, json.loads(row.data), row.metadata and json.loads(row.metadata))
        for row in encoding.take_apart(encoded[0])
    ]


def refused(payload: Any, kind: DeviceType, **rules: Any) -> tuple[Reason, str]:
    """Why it becomes a dead letter."""
    found = Ways(kind, settings.ValidationSettings(**rules)).general(json.dumps(payload).encode())
    assert isinstance(found, MessageError)
    return found.reason, found.detail


def test_text_in_a_field_of_numbers_is_beside_the_data() -> None:
    """One would make every later ``avg((data->>'t')::float)`` fail."""
    assert stored({"ts": NOW_MS, "metrics": {"t": "hot", "n": 2**64, "other": "x"}}, TYPED) == [
        (
            NOW_US,
            {"other": "x"},
            {"violations": {"t": "invalid_field", "n": "invalid_field"}, "invalid": {"t": "hot", "n": 2**64}},
        )
    ]


def test_what_the_device_said_of_it_stays() -> None:
    """Its metadata are united with the marks."""
    payload = {"ts": NOW_MS, "metrics": {"t": True}, "metadata": {"fw": "1.2"}, "message_id": 7}
    assert stored(payload, TYPED)[0][1:] == (
        {},
        {"fw": "1.2", "violations": {"t": "invalid_field"}, "invalid": {"t": True}, "message_id": "7"},
    )


def test_a_time_under_a_name_that_is_not_configured_is_flagged() -> None:
    """The reading gets the receive time, with a word; a field of the type is a field, whatever its name."""
    payload = {"Time": "2026-11-20T12:00:00Z", "t": 1.5}
    mark = {"violations": {"Time": "time_not_used"}}
    for kind in (a_type(), TYPED):
        assert stored(payload, kind) == [(NOW_US, payload, mark)]
    assert stored(payload, a_type(Field("Time", "text"))) == [(NOW_US, payload, None)]
    reason, detail = refused(payload, STRICT)
    assert reason is Reason.UNUSED_TIME
    assert "Time seems to be the time" in detail


@pytest.mark.parametrize("ts", [32_400_000, -1, 0, 978_307, "1999-12-31T23:59:59Z"])
def test_a_time_of_a_clock_that_was_never_set(ts: Any) -> None:
    """Milliseconds since a device's start were stored as 1971: a dead letter, or the receive time with a word."""
    payload = {"ts": ts, "metrics": {"t": 1}}
    reason, detail = refused(payload, TYPED, max_age=1e10)
    assert reason is Reason.TOO_OLD
    assert "validation.min_time" in detail
    ((time_us, data, metadata),) = stored(payload, TYPED, max_age=1e10, on_old="receive_time")
    assert (time_us, data, metadata["violations"]) == (NOW_US, {"t": 1}, {"time": "timestamp_too_old"})
    assert metadata["invalid"]["time"] < "2000"


def test_a_time_in_the_future_that_is_replaced_is_told() -> None:
    """The receive time instead, and what the device said beside it."""
    payload = {"ts": NOW_MS + 365 * 86_400_000, "metrics": {"t": 1}}
    ((time_us, _, metadata),) = stored(payload, STRICT, on_future="receive_time")
    assert (time_us, metadata["violations"]) == (NOW_US, {"time": "timestamp_in_future"})
    assert stored(payload, STRICT, on_future="keep")[0][2] is None


def test_a_date_time_in_digits_is_never_an_epoch() -> None:
    """Neither under any policy nor in the future: of the declared zone, or refused."""
    rules = {"on_old": "keep", "on_future": "keep", "min_time": "1970-01-01"}
    for ts in (202611201200, "202611201200", 20261120120000):
        payload = {"ts": ts, "metrics": {"t": 1}}
        assert refused(payload, TYPED, **rules)[0] is Reason.BAD_TIMESTAMP


@pytest.mark.parametrize(
    ("second", "kind", "says"),
    [
        ({"t": 99}, STRICT, "[1]: t = 99 is outside -40.0 … 85.0"),
        ({"t": 1, "ts": NOW_MS + 10**9}, TYPED, "[1]: 2"),
        ({"t": 1, "serial_number": "X"}, TYPED, "[1]: the payload speaks for 'X'"),
        (
            {"x": 1},
            a_type(Field("t", "float"), unknown_fields="reject"),
            "[1]: the device type has no field x",
        ),
    ],
)
def test_the_bad_reading_of_many_is_named(second: dict[str, Any], kind: DeviceType, says: str) -> None:
    """By its index; a message of one reading has none."""
    assert refused([{"t": 1}, second, {"t": 1}], kind)[1].startswith(says)
    assert refused(second, kind)[1].startswith(says.removeprefix("[1]: "))


def test_flagged_readings_are_counted() -> None:
    """By reason, and only those that are stored."""
    ways = Ways(TYPED)
    ways.general(json.dumps([{"ts": NOW_MS, "t": "x", "n": "y"}, {"ts": NOW_MS, "t": 99}]).encode())
    ways.general(json.dumps([{"ts": NOW_MS, "t": "x"}, {"ts": 5, "t": 99}]).encode())
    assert ways.flagged == {
        ("telemetry", Reason.INVALID_FIELD): 2,
        ("telemetry", Reason.OUT_OF_RANGE): 1,
    }


def test_an_id_that_no_index_can_hold_is_refused() -> None:
    """PostgreSQL has no keys of more than 2.7 kB, and would refuse it with all that is written beside it."""
    payload = {"ts": NOW_MS, "metrics": {"t": 1}}
    assert len(stored({**payload, "message_id": "é" * 255}, TYPED)) == 1
    reason, detail = refused({**payload, "message_id": "é" * 256}, TYPED)
    assert (reason, detail[:53]) == (
        Reason.BAD_SHAPE,
        "message_id of 256 characters, more than 255: 'ééééééé",
    )


@pytest.mark.parametrize("made_of", heavy.payloads(NOW_MS))
def test_no_payload_costs_without_bound(made_of: str) -> None:
    """1 MiB of whatever costs most: nobody else is served meanwhile. Of CPU, the least of three tries."""
    payload, taken = heavy.payloads(NOW_MS)[made_of], []
    for _ in range(3):
        began = time.thread_time()
        Ways(TYPED).general(payload)
        taken.append(time.thread_time() - began)
        if taken[-1] < SECONDS:
            return
    raise AssertionError(taken)
