"""The decoder of native JSON: nothing changed, nothing lost, nothing but ``MessageError``."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import decoders
from gateway.decoders import Limits
from gateway.errors import ConfigurationError, MessageError
from gateway.messages import Reading
from gateway.outcomes import Reason
from tests.unit.decoders.test_cases import kinds

decode = decoders.build("json", Limits())


def outcome(payload: bytes) -> list[Reading] | Reason:
    """The readings, or the reason of the refusal."""
    try:
        return decode(payload)
    except MessageError as refused:
        return refused.reason


LARGEST = int(1.7976931348623157e308)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-LARGEST, LARGEST),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, st.text(':"\\{}[]')),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
METRICS = st.dictionaries(TEXT, VALUES, min_size=1, max_size=5)
SPELLINGS = st.fixed_dictionaries({"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, 2])})


@given(METRICS, st.none() | st.integers(0, 4 * 10**12), SPELLINGS)
@example({"a": 10**308}, None, {})
@example({"a": -LARGEST}, 1795176000000, {})
def test_metrics_come_out_as_they_went_in(
    metrics: dict[str, Any], ts: int | None, spelling: dict[str, Any]
) -> None:
    """Every value that JSON can hold, big integers to the last digit, in whichever way it is written."""
    payload = json.dumps({"ts": ts, "metrics": metrics}, **spelling).encode()
    (reading,) = decode(payload)
    assert metrics == reading.metrics
    assert kinds(metrics) == kinds(reading.metrics)


ANY_TEXT = st.text()
ANY_VALUE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT, st.integers(-(10**400), 10**400)
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            ANY_TEXT | st.sampled_from(["ts", "time", "metrics", "metadata", "serial_number", "message_id"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(ANY_VALUE, st.booleans())
@example({"ts": "--5", "a": 1}, True)
def test_any_json_decodes_or_is_refused(value: object, ascii_only: bool) -> None:
    """Whatever Python can dump: readings with metrics, or a reason; never another exception."""
    payload = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    readings = outcome(payload)
    if isinstance(readings, list):
        assert all(reading.metrics for reading in readings)
        assert len(readings) == (len(value) if isinstance(value, list) else 1)


@given(st.binary(max_size=60) | st.text('{}[]":,0123456789.eE-+ntfalsru\\/u ', max_size=60).map(str.encode))
def test_any_bytes_decode_or_are_refused(payload: bytes) -> None:
    """Noise is refused with a reason, whatever it looks like."""
    assert outcome(payload)


OBJECT = st.recursive(
    st.sampled_from(["1", "-2.5", '":"', r'"\u003a"', r'"\u003A:"', r'"\"\\"', "null", "[]", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(
            st.tuples(st.sampled_from(["a", "b", "a:", r"\u0061", r"\u003a", ":"]), inner), max_size=4
        ).map(lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}")
    ),
    max_leaves=10,
)


def has_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Marks an object in which a key stands twice; the mark spreads outwards."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys) or any(marked(value) for _, value in pairs):
        return {"twice!": True}
    return dict(pairs)


def marked(value: object) -> bool:
    """Whether an object inside has a key twice."""
    if isinstance(value, list):
        return any(map(marked, value))
    return isinstance(value, dict) and "twice!" in value


@given(OBJECT)
@example(r'{"a":1,"a":2,"b":"\u003a"}')
@example(r'{"a":{"b":1,"b":2},"\u003a":":"}')
def test_a_key_that_stands_twice_is_always_seen(value: str) -> None:
    """No value is ever silently lost, however colons and escapes hide that a key stands twice."""
    payload = f'{{"metrics": {{"m": {value}}}}}'
    twice = marked(json.loads(payload, object_pairs_hook=has_twice))
    assert twice == (outcome(payload.encode()) is Reason.DUPLICATE_KEY)


def test_ten_thousand_readings_in_their_order() -> None:
    """A device that was offline for long sends them all at once."""
    payload = json.dumps([{"ts": 1795176000000 + n, "metrics": {"n": n}} for n in range(10_000)]).encode()
    found = decode(payload)
    assert list(range(10_000)) == [reading.metrics["n"] for reading in found]
    assert found[-1] == Reading({"n": 9999}, (1795176000000 + 9999) * 1000)


def test_one_reading_too_many_is_refused() -> None:
    """The limit is the setting's; the refusal names both numbers."""
    few = decoders.build("json", Limits(max_readings=2))
    assert len(few(b'[{"a": 1}, {"a": 1}]')) == 2
    with pytest.raises(MessageError, match=r"3 readings .* 1 to 2") as refused:
        few(b'[{"a": 1}, {"a": 1}, {"a": 1}]')
    assert refused.value.reason is Reason.BAD_SHAPE


@pytest.mark.parametrize("depth", [1, 5, 32, 200])
def test_the_depth_is_what_the_setting_says(depth: int) -> None:
    """So many containers inside each other are taken, one more is not."""
    limited = decoders.build("json", Limits(max_depth=depth))
    assert limited(b'{"a":' * depth + b"1" + b"}" * depth)
    with pytest.raises(MessageError) as refused:
        limited(b'{"a":' * (depth + 1) + b"1" + b"}" * (depth + 1))
    assert refused.value.reason is Reason.TOO_DEEP


def test_a_payload_made_to_be_slow_is_not() -> None:
    """Thousands of keys of which the last stands twice: the others on the socket do not wait for it.

    The bound is generous: what it guards against took minutes.
    """
    keys = ",".join(f'"{n}":1' for n in range(24_998))
    begun = time.perf_counter()
    with pytest.raises(MessageError) as refused:
        decode(f'{{{keys},"24997":2}}'.encode())
    assert refused.value.reason is Reason.DUPLICATE_KEY
    assert "'24997'" in refused.value.detail
    assert time.perf_counter() - begun < 5


def test_a_refusal_never_repeats_the_payload() -> None:
    """Details are for lists and logs: bounded, whatever was sent."""
    for payload in (
        b'{"' + b"k" * 9000 + b'": 1, "' + b"k" * 9000 + b'": 2}',
        b'{"ts": "' + b"t" * 9000 + b'", "a": 1}',
        b'{"a": ' + b"1" * 9000 + b"}",
        b'{"a": 1e' + b"9" * 9000 + b"}",
        b'{"a": ' + b"x" * 9000 + b"}",
    ):
        with pytest.raises(MessageError) as refused:
            decode(payload)
        assert len(refused.value.detail) < 200


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ('{"metrics": [1]}', "metrics: an object of names and values, not an array"),
        (
            '{"ts": 1, "values": {"t": 1}}',
            "values: an object: the metrics of a reading stand beside its time",
        ),
        ('[{"a": 1}, 5]', "[1]: a reading is an object, not a number"),
        ('[{"a": 1}, {"metrics": 5}]', "[1].metrics: an object of names and values, not a number"),
        ('[{"a": 1}, {"a": 1}, {"ts": "x", "a": 1}]', "[2].ts: not a timestamp: 'X'"),
        ('[{"a": 1}, {}]', "[1]: no metrics in the reading"),
        ('[{"a": 1, "metadata": 5}]', "[0].metadata: an object, not a number"),
        ('[{"a": 1, "serial_number": []}]', "[0].serial_number: text, not an array"),
        ('[{"a": 1}, {"metrics": {"a": 1, "a": 2}}]', "[1].metrics: the key 'a' stands twice in one object"),
        ('[{"a": 1}, {"metrics": {"b c": "\\u0000"}}]', "[1].metrics.'b c': NUL"),
        ('[{"a": 1}, {"metrics": {"b": [1, "\\ud800"]}}]', "[1].metrics.b[1]: a lone surrogate"),
        ('[{"a": 1}, {"b": NaN}]', "[1].b: NaN is no JSON number"),
        ('[{"a": 1}, {"b": 1e400}]', "[1].b: 1e400 is beyond double precision"),
        ('[{"a": 1}, {"b": %s}]' % ("9" * 400), "[1].b: a number of 400 digits"),
    ],
)
def test_a_refusal_says_where(payload: str, says: str) -> None:
    """Index and path of what is wrong: nobody looks through ten thousand readings."""
    with pytest.raises(MessageError) as refused:
        decode(payload.encode())
    assert refused.value.detail.startswith(says)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\xef\xbb\xbf{}", "a byte order mark (EF BB BF) before the JSON"),
        (gzip.compress(b'{"a": 1}', mtime=0), "the payload is gzip"),
        (zlib.compress(b'{"a": 1}'), "the payload is zlib"),
        (b"\x28\xb5\x2f\xfd\x04", "the payload is zstd"),
        ('{"a": 1}'.encode("utf-16"), "the payload is UTF-16"),
        ('{"a": 1}'.encode("utf-32"), "the payload is UTF-32"),
        ('{"a": 1}'.encode("utf-16-be"), "the payload looks like UTF-16"),
        ('{"a": 1}'.encode("utf-32-le"), "the payload looks like UTF-32"),
        (b'{"a": 1}\0\0', "2 bytes after the JSON, from character 8 on: NUL"),
        (b'{"a": 1} {"a": 2}', "8 bytes after the JSON, from character 9 on: another JSON value"),
        (b'{"a": 1}}', "1 bytes after the JSON, from character 8 on: '}'"),
        ("[1] é€".encode(), "5 bytes after the JSON, from character 4 on: 'é€'"),
        (b"\xc3(", "byte 0 is no UTF-8"),
    ],
)
def test_what_is_no_json_is_named(payload: bytes, says: str) -> None:
    """For what it is, as far as its bytes tell."""
    with pytest.raises(MessageError) as refused:
        decode(payload)
    assert refused.value.detail.startswith(says)


@pytest.mark.parametrize(
    "name",
    ["Time", "TIME", "timeStamp", "time_stamp", "timestamp_ms", "datetime", "DateTime", "date_time", "TS", "ts_ms",
     "@timestamp", "utc_time", "unixtime", "epoch", "eventTime", "created_at", "measuredAt", "time_s", "tst"],
)  # fmt: skip
@pytest.mark.parametrize("around", ['{"%s": 1795176000, "n": 1}', '{"metrics": {"n": 1, "%s": "noon"}}'])
def test_a_key_meant_as_the_time_is_told(name: str, around: str) -> None:
    """The reading gets the receive time, but not without a word; where another key is the time, it is a metric."""
    (reading,) = decode((around % name).encode())
    assert (reading.time_us, reading.unused_time) == (None, name)
    own = decoders.build("json", Limits(time_keys=("at", name)))
    if "metrics" not in around:
        assert own((around % name).encode()) == [Reading({"n": 1}, 1795176000000000)]
    (timed,) = own(f'{{"at": 1795176000, "{name}": 5}}'.encode())
    assert timed == Reading({name: 5}, 1795176000000000)


@pytest.mark.parametrize(
    "name", ["uptime", "runtime", "times", "response_time", "rate", "at", "temperature", "ts2"]
)
def test_what_is_no_time_is_not_told(name: str) -> None:
    """Metrics have such names."""
    (reading,) = decode(f'{{"{name}": 1795176000}}'.encode())
    assert reading.unused_time is None


@pytest.mark.parametrize("value", ["null", "true", "[5]", '{"at": 5}'])
def test_what_holds_no_time_is_not_told(value: str) -> None:
    """A key named like a time, with what can be none."""
    (reading,) = decode(f'{{"Time": {value}, "n": 1}}'.encode())
    assert reading.unused_time is None


def test_the_time_stands_where_the_stream_says() -> None:
    """The first key that is there and not null counts; others are metrics."""
    own = decoders.build("json", Limits(time_keys=("at", "zeit")))
    assert own(b'{"zeit": 1795176000, "n": 1}') == [Reading({"n": 1}, 1795176000000000)]
    assert own(b'{"zeit": 5, "at": 1795176000}') == [Reading({"zeit": 5}, 1795176000000000)]
    (other,) = own(b'{"ts": 1795176000, "n": 1}')
    assert other == Reading({"ts": 1795176000, "n": 1}, unused_time="ts")


def test_too_many_values_are_refused() -> None:
    """Each costs time to decode, whatever it is; commas in text are none."""
    few = decoders.build("json", Limits(max_values=100))
    assert few(('{"a": [' + "1.25, " * 99 + "1]}").encode())
    assert few(('{"a": "' + r"\\\", , ," * 400 + '"}').encode())
    for many in ('{"a": [' + "1.25, " * 100 + "1]}", '{"' + r"\"," * 99 + '": [' + "1.25, " * 100 + "1]}"):
        with pytest.raises(
            MessageError, match=r"101 values in one message, more than 100 \(validation.max_values\)"
        ):
            few(many.encode())


@pytest.mark.parametrize("number", ["1e308", "1E+308", "-1.7976931348623157e308", "5e-324", "1e-0307"])
def test_numbers_at_the_edge_cost_like_others(number: str) -> None:
    """A message of 900 kB of them kept the event loop for 1.4 s: 20 to 40 times what others took."""
    plain = payload_of("1.2345678901234567")
    cost = time_of(payload_of(number)) / len(payload_of(number)) * len(plain)
    assert cost < 8 * time_of(plain)


def payload_of(number: str) -> bytes:
    """A reading with many of this number, some 100 kB."""
    return f'{{"ts": 1795176000000, "metrics": {{"a": [{", ".join([number] * (100_000 // len(number)))}]}}}}'.encode()


def time_of(payload: bytes) -> float:
    """The least time that decoding took, in seconds of the processor."""
    taken = []
    for _ in range(3):
        begun = time.process_time()
        decode(payload)
        taken.append(time.process_time() - begun)
    return min(taken)


def test_an_unknown_decoder_is_named_with_those_there_are() -> None:
    """A typing error in a stream's ``decoder`` is told before anything starts."""
    with pytest.raises(ConfigurationError, match=r"no decoder 'jsn': there are .*json"):
        decoders.build("jsn", Limits())
