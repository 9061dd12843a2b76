"""Is this reading believable, and what is it then stored as?"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import settings
from gateway.errors import MessageError
from gateway.ingest.validation import TimeCheck, field_check, receive_time
from gateway.messages import DeviceType, Field, Reading
from gateway.outcomes import DataType, Reason, UnknownFields
from tests.support.batching import NOW_US, a_device, a_type

SECOND, DAY, YEAR = 1_000_000, 86_400_000_000, 365 * 86_400_000_000
TYPES: tuple[DataType, ...] = ("float", "int", "text")


def flagged(kind: DeviceType, metrics: dict[str, Any]) -> dict[str, str]:
    """What the type's check flags of these metrics; it may change them."""
    check = field_check(kind)
    assert check is not None
    return check(Reading(metrics)) or {}


def refusal(kind: DeviceType, metrics: dict[str, Any]) -> MessageError:
    """Why the type's check refuses these metrics."""
    with pytest.raises(MessageError) as refused:
        flagged(kind, metrics)
    return refused.value


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("data_type", "accepted", "refused"),
    [
        ("float", [1, 1.5, -0.0, 2**70], [True, "1", [1], {}]),
        ("int", [1, -(2**63), 3.0, -0.0, 2**63 - 1], [1.5, 1e-9, True, "1", [1], 2**63, -(2**70), 1e300]),
        ("bool", [True, False], [0, 1, "true", 1.0]),
        ("text", ["", "21.5", "°"], [1, True, ["x"], {}]),
        ("json", [1, 1.5, True, "x", [1], {"a": []}], []),
    ],
)
def test_types(data_type: DataType, accepted: list[Any], refused: list[Any]) -> None:
    """A field takes values of its type only; a boolean is no number, a whole float is an integer, bigint bounds it."""
    kind = a_type(Field("x", data_type))
    assert [flagged(kind, {"x": value}) for value in accepted] == [{}] * len(accepted)
    assert [flagged(kind, {"x": value}) for value in refused] == [{"x": Reason.INVALID_FIELD}] * len(refused)


@pytest.mark.parametrize(
    ("minimum", "maximum", "inside", "outside"),
    [
        (-40.0, 85.0, [-40, 85, -40.0, 0, 84.999], [-40.001, 85.001, 1e308, -(2**1000)]),
        (0.0, None, [0, 1e308, 2**1023], [-1, -1e-300]),
        (None, 0.0, [0, -1e308], [1, 2**60]),
        (None, None, [1e308, -(10**300)], []),
    ],
)
@pytest.mark.parametrize("data_type", ["float", "int"])
def test_ranges(
    data_type: DataType,
    minimum: float | None,
    maximum: float | None,
    inside: list[float],
    outside: list[float],
) -> None:
    """Bounds are inclusive, each may be left open; integers are compared exactly."""
    kind = a_type(Field("x", data_type, "celsius", minimum, maximum))
    whole = [
        value
        for value in (*inside, *outside)
        if data_type == "float" or (float(value).is_integer() and abs(value) < 2**63)
    ]
    expected = {value: {} if value in inside else {"x": Reason.OUT_OF_RANGE} for value in whole}
    assert {value: flagged(kind, {"x": value}) for value in whole} == expected


def test_text_knows_no_range() -> None:
    """Whatever bounds were entered for it."""
    assert flagged(a_type(Field("x", "text", None, 0.0, 1.0)), {"x": "5"}) == {}
    assert flagged(a_type(Field("x", "bool", None, 5.0, 6.0)), {"x": True}) == {}


def test_null_is_no_value() -> None:
    """A field that is null is neither of the wrong type nor out of range; a required one is missing."""
    kind = a_type(Field("x", "float", None, 0.0, 1.0), Field("y", "int", required=True))
    assert flagged(kind, {"x": None, "y": 1}) == {}
    assert flagged(kind, {"x": 0.5, "y": None}) == {"y": Reason.MISSING_FIELD}
    assert flagged(kind, {"x": 0.5}) == {"y": Reason.MISSING_FIELD}


def test_everything_wrong_is_flagged_at_once() -> None:
    """What no query could read as the field's type is kept beside the data."""
    kind = a_type(
        Field("a", "float", None, 0.0, 1.0),
        Field("b", "int"),
        Field("c", "text", required=True),
        Field("d", "bool"),
    )
    check, reading = field_check(kind), Reading({"a": 5.0, "b": "x", "d": True, "e": 1})
    assert check is not None
    assert check(reading) == {
        "a": Reason.OUT_OF_RANGE, "b": Reason.INVALID_FIELD, "c": Reason.MISSING_FIELD,
    }  # fmt: skip
    assert reading.metrics == {"a": 5.0, "d": True, "e": 1}
    assert reading.metadata == {"invalid": {"b": "x"}}


def test_a_whole_float_in_a_field_of_integers_is_stored_as_one() -> None:
    """PostgreSQL reads the text 3.0 as no integer."""
    metrics = {"x": 3.0}
    assert flagged(a_type(Field("x", "int")), metrics) == {}
    assert repr(metrics) == "{'x': 3}"


@pytest.mark.parametrize("value", [{"x": 1}, {}, [{"x": 1}], [[1]]])
def test_objects_beside_typed_fields(value: Any) -> None:
    """Nobody checks what is in them: flagged or rejected as the type says, unless it has such a field."""
    field, metrics = Field("t", "float"), {"t": 1.0, "acc": value}
    assert flagged(a_type(field), metrics) == {"acc": Reason.BAD_SHAPE}
    assert metrics == {"t": 1.0, "acc": value}
    found = refusal(a_type(field, violations="reject"), metrics)
    assert (found.reason, found.detail) == (
        Reason.BAD_SHAPE, "acc holds an object, and is no field of device type sensor",
    )  # fmt: skip
    assert flagged(a_type(field, Field("acc", "json")), metrics) == {}
    assert flagged(a_type(field, unknown_fields="drop"), metrics) == {}


def test_lists_of_plain_values_beside_typed_fields() -> None:
    """A waveform is a value."""
    assert flagged(a_type(Field("t", "float")), {"t": 1, "wave": [1, 2.5, None, "x"]}) == {}


@pytest.mark.parametrize(
    ("declared", "sent"),
    [("temperature", "Temperature"), ("température", "tempe\u0301rature"), ("pm2.5", "PM2.5 "), ("µg", "μg")],
)
def test_a_field_in_another_spelling(declared: str, sent: str) -> None:
    """It differs in case or Unicode form from a field of the type, whose queries will not find it."""
    assert flagged(a_type(Field(declared, "float")), {sent: 1.0}) == {sent: Reason.UNKNOWN_FIELD}
    found = refusal(a_type(Field(declared, "float"), violations="reject"), {sent: 1.0})
    assert "is a field in another spelling" in found.detail
    both = a_type(Field(declared, "float"), Field(sent, "float"))
    assert flagged(both, {sent: 1.0, declared: 2.0}) == {}


@pytest.mark.parametrize(
    ("metrics", "reason", "says"),
    [
        ({"t": 99.5, "ok": True}, Reason.OUT_OF_RANGE, "t = 99.5 is outside -40.0 … 85.0 celsius"),
        ({"t": "hot", "ok": True}, Reason.INVALID_FIELD, "t should be float, not str"),
        ({"t": 1.0}, Reason.MISSING_FIELD, "ok is required by device type sensor"),
    ],
)
def test_a_type_that_rejects(metrics: dict[str, Any], reason: Reason, says: str) -> None:
    """One violation refuses the whole message, in words an operator can act upon."""
    kind = a_type(
        Field("t", "float", "celsius", -40.0, 85.0), Field("ok", "bool", required=True), violations="reject"
    )
    found = refusal(kind, metrics)
    assert (found.reason, found.detail) == (reason, says)


def test_open_bounds_are_said_plainly() -> None:
    """What has no end is not called None."""
    kind = a_type(Field("t", "float", None, 0.0), violations="reject")
    assert "None" not in refusal(kind, {"t": -1}).detail


@pytest.mark.parametrize(
    ("policy", "metrics", "left"),
    [
        ("keep", {"x": 1, "y": 2}, {"x": 1, "y": 2}),
        ("drop", {"x": 1, "y": 2}, {"x": 1}),
        ("drop", {"x": None, "y": 2}, {"x": None}),
    ],
)
def test_unknown_fields(policy: UnknownFields, metrics: dict[str, Any], left: dict[str, Any]) -> None:
    """Kept or dropped, as the type says."""
    assert flagged(a_type(Field("x", "int"), unknown_fields=policy), metrics) == {}
    assert metrics == left


def test_unknown_fields_that_are_rejected() -> None:
    """They are named; so is the case that none is left."""
    kind = a_type(Field("x", "int"), unknown_fields="reject")
    found = refusal(kind, {"z": 1, "x": 1, "y": 2})
    assert (found.reason, found.detail) == (Reason.UNKNOWN_FIELD, "the device type has no field y, z")
    assert len(refusal(kind, {f"{n:03}": 1 for n in range(999)}).detail) < 300
    nothing_left = refusal(a_type(Field("x", "int"), unknown_fields="drop"), {"y": 2})
    assert nothing_left.reason is Reason.UNKNOWN_FIELD


def test_a_type_without_opinions_has_no_check() -> None:
    """Its readings cost nothing."""
    assert field_check(a_type()) is None
    assert field_check(a_type(unknown_fields="reject")) is not None


@given(
    st.dictionaries(
        st.sampled_from("abcxyz"),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.lists(st.integers()),
        min_size=1,
    )
)
def test_flagging_never_changes_or_loses_a_value(metrics: dict[str, Any]) -> None:
    """Whatever a device sends is stored as it sent it, among the data or among what is invalid."""
    kind = a_type(
        *(Field(name, data_type, None, -1.0, 1.0) for name, data_type in zip("abc", TYPES, strict=True))
    )
    before, reading, check = dict(metrics), Reading(metrics), field_check(kind)
    assert check is not None
    found = check(reading) or {}
    invalid = (reading.metadata or {}).get("invalid", {})
    assert {**reading.metrics, **invalid} == before
    assert invalid.keys() == {name for name, reason in found.items() if reason == Reason.INVALID_FIELD}
    assert set(found) <= set(before)


# ---------------------------------------------------------------- times


def times(**rules: Any) -> TimeCheck:
    """A check with these settings."""
    return TimeCheck(settings.ValidationSettings(**rules))


BELIEVED = [NOW_US, NOW_US - 10 * YEAR, NOW_US + 600 * SECOND, None]
DOUBTED = [
    (NOW_US + 600 * SECOND + 1, Reason.IN_THE_FUTURE),
    (NOW_US + YEAR, Reason.IN_THE_FUTURE),
    (253_402_300_799_999_999, Reason.IN_THE_FUTURE),
    (NOW_US - 10 * YEAR - 1, Reason.TOO_OLD),
    (YEAR, Reason.TOO_OLD),
    (32_400_000 * SECOND, Reason.TOO_OLD),
    (0, Reason.TOO_OLD),
    (-1, Reason.TOO_OLD),
    (-62_135_596_800_000_000, Reason.TOO_OLD),
]


@pytest.mark.parametrize("time_us", BELIEVED)
@pytest.mark.parametrize("policy", ["reject", "receive_time", "keep"])
def test_times_that_are_believed(time_us: int | None, policy: str) -> None:
    """From ten years ago to ten minutes ahead: stored as they are, whatever the policy for others."""
    assert times(on_future=policy, on_old=policy).judge(time_us, NOW_US) == time_us


@pytest.mark.parametrize(("time_us", "reason"), DOUBTED)
def test_times_that_are_not_believed(time_us: int, reason: Reason) -> None:
    """Refused with the moment named, kept, or replaced by the receive time, as the policy says."""
    with pytest.raises(MessageError) as refused:
        times().judge(time_us, NOW_US)
    assert refused.value.reason is reason
    assert times(on_future="keep", on_old="keep").judge(time_us, NOW_US) == time_us
    assert times(on_future="receive_time", on_old="receive_time").judge(time_us, NOW_US) is None


def test_the_policies_are_apart() -> None:
    """One for the future, one for the past."""
    check = times(on_future="keep", on_old="receive_time")
    assert check.judge(NOW_US + YEAR, NOW_US) == NOW_US + YEAR
    assert check.judge(0, NOW_US) is None


def test_the_greatest_age_counts_from_the_receipt() -> None:
    """``max_age`` to the microsecond; never before ``min_time``, however large it is."""
    check = times(max_age="30d")
    assert check.judge(NOW_US - 30 * DAY, NOW_US) == NOW_US - 30 * DAY
    with pytest.raises(MessageError) as refused:
        check.judge(NOW_US - 30 * DAY - 1, NOW_US)
    assert refused.value.reason is Reason.TOO_OLD
    with pytest.raises(MessageError):
        times(max_age=1e9).judge(0, NOW_US)


@pytest.mark.parametrize(
    ("written", "first_us"),
    [("2000-01-01", 946_684_800), ("2010-06-01T00:00:00+02:00", 1_275_343_200), ("1970-01-01T00:00:00Z", 0)],
)
def test_no_time_is_before_min_time(written: str, first_us: int) -> None:
    """To the microsecond; the refusal names the setting."""
    check = times(max_age=1e10, min_time=written)
    assert check.judge(first_us * SECOND, NOW_US) == first_us * SECOND
    with pytest.raises(MessageError, match=r"validation\.min_time") as refused:
        check.judge(first_us * SECOND - 1, NOW_US)
    assert refused.value.reason is Reason.TOO_OLD


def test_no_skew_at_all() -> None:
    """``max_future_skew = 0`` believes nothing beyond the receipt."""
    assert times(max_future_skew=0).judge(NOW_US, NOW_US) == NOW_US
    with pytest.raises(MessageError):
        times(max_future_skew=0).judge(NOW_US + 1, NOW_US)


def test_a_refusal_says_the_moment() -> None:
    """So that an operator sees at once what the device's clock is set to."""
    with pytest.raises(MessageError, match="1970-01-01T00:00:05"):
        times().judge(5 * SECOND, NOW_US)
    with pytest.raises(MessageError, match="600 s ahead"):
        times().judge(NOW_US + YEAR, NOW_US)


@given(st.lists(st.integers(NOW_US - DAY, NOW_US + DAY), min_size=2, max_size=30))
def test_receive_times_only_rise(received: list[int]) -> None:
    """Whatever the clock does: no two readings of a device share one, each is as close to its receipt as can be."""
    device = a_device()
    given_out = [receive_time(device, at) for at in received]
    assert all(earlier < later for earlier, later in itertools.pairwise(given_out))
    assert all(out >= at for out, at in zip(given_out, received, strict=True))
    assert given_out[0] == received[0]


def test_receive_times_of_devices_are_apart() -> None:
    """Two devices may share a microsecond."""
    assert [receive_time(a_device(), NOW_US) for _ in range(2)] == [NOW_US, NOW_US]
