"""The fast path of a plain message: it comes to the very row of the general path, or says nothing."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import decoders, settings
from gateway.decoders import Limits
from gateway.devices.registry import Registry
from gateway.errors import MessageError
from gateway.ingest.intake import Encoded, Intake
from gateway.ingest.new_chunks import NewChunks
from gateway.ingest.routes import Preparation, Routes, Stream
from gateway.ingest.waiting import Unresolved
from gateway.messages import Delivery, DeviceType, Field
from gateway.observability.health import Health
from gateway.storage.pools import Pool
from tests.support.bad_input import CASES
from tests.support.batching import NOW_US, NOWHERE, a_device, a_type, database, published

NOW_MS = NOW_US // 1000
TOPIC = "t/acme/S-1"
FULL = b'{"ts": %d, "metrics": {"level": 5, "n": 7, "on": true, "text": "a b", "any": 1.5}}' % NOW_MS
KINDS = (
    a_type(),
    a_type(unknown_fields="drop"),
    a_type(Field("level", "float", minimum=0, maximum=10), Field("n", "int", minimum=0.5)),
    a_type(Field("level", "float", required=True), Field("a b", "json"), violations="reject"),
    a_type(Field("on", "bool"), Field("text", "text", required=True), unknown_fields="reject"),
    a_type(Field("any", "json", required=True), Field("n", "int", maximum=7.5), unknown_fields="drop"),
    a_type(Field("level", "float", minimum=-1e300, maximum=1e300)),
    a_type(Field("n", "int", maximum=2.0**63)),
    a_type(Field("level", "float", minimum=0.2, maximum=0.4)),
)
NAMES = st.sampled_from(["level", "n", "on", "text", "any", "a b", "stranger", "ts", "metrics", "a:b", "\0"])
NUMBERS = (
    st.integers(-12, 12)
    | st.sampled_from([0.3, 5.0, -0.0, 1e22, 2**63 - 1, 2**63, -(2**63), 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = NUMBERS | st.booleans() | st.none() | st.text(st.sampled_from('a:"\\é\0{['), max_size=3)
METRICS = st.dictionaries(
    NAMES, VALUES | st.lists(VALUES, max_size=1) | st.dictionaries(NAMES, VALUES, max_size=1)
)
STAMPS = st.sampled_from(
    [
        *(
            NOW_MS,
            NOW_MS,
            NOW_MS,
            NOW_MS + 10**6,
            10**11,
            10**11 - 1,
            10**12,
            10**13,
            NOW_US,
            1.5,
            None,
            "now",
        ),
        *(202611241200, 20261124120000, 32_400_000),
    ]
)


class Ways:
    """Both ways of a message of one device, of this type, under these rules."""

    def __init__(
        self,
        of: DeviceType,
        rules: settings.ValidationSettings | None = None,
        chunks: NewChunks | None = None,
        **options: Any,
    ) -> None:
        rules = rules or settings.ValidationSettings()
        stream = settings.StreamSettings(name="telemetry", topic="t/{tenant}/{device}", **options)
        registry = Registry(
            Pool("metadata", database(NOWHERE)),
            settings.RegistrySettings(),
            Health().component("metadata"),
            Preparation(rules),
        )
        routes = Routes([Stream(stream, decoders.build("json", Limits()))], registry, max_topics=10)
        self._intake, self._route = Intake(rules, routes, chunks or NewChunks(30)), routes.find(TOPIC)
        self.device = a_device("S-1")
        self.device.type = of
        Preparation(rules)(self.device)
        registry.entry("acme", "S-1").learn(self.device)
        self._route.take_fast_path()

    @property
    def flagged(self) -> Mapping[tuple[str, str], int]:
        """What the general path has flagged, by stream and reason."""
        return self._intake.flagged

    def fast(self, payload: bytes, **rest: Any) -> bytes | None:
        """The row of the fast path."""
        return self.rows(_delivery([payload], **rest))[0][0]

    def rows(self, delivery: Delivery) -> tuple[list[bytes | None], Mapping[int, int]]:
        """The rows of the fast path, and the receive times that it gave."""
        return self._intake.fast_rows(delivery, [self._route] * len(delivery.messages))

    def plain(self, payload: bytes) -> Encoded | None:
        """What the fast path makes of it, as the general one says it."""
        self.device.last_receive_us = 0
        (row,), untimed = self.rows(_delivery([payload]))
        return None if row is None else (row, untimed.get(0), [], 1)

    def general(self, payload: bytes) -> Encoded | MessageError:
        """What the general path makes of it."""
        delivery = _delivery([payload])
        self.device.last_receive_us = 0
        try:
            found = self._intake.encode(delivery.messages[0], self._route, delivery)
        except MessageError as refused:
            return refused
        assert not isinstance(found, Unresolved)
        return found

    async def large(self, payload: bytes) -> Encoded | MessageError:
        """The same, of what is decoded beside the event loop."""
        delivery = _delivery([payload])
        self.device.last_receive_us = 0
        assert self._intake.is_large(delivery.messages[0], self._route)
        try:
            found = await self._intake.encode_large(delivery.messages[0], self._route, delivery)
        except MessageError as refused:
            return refused
        assert not isinstance(found, Unresolved)
        return found


def _delivery(payloads: Sequence[bytes], **rest: Any) -> Delivery:
    return Delivery([published(TOPIC, payload, **rest) for payload in payloads], 0, NOW_US)


ALL_WAYS = [Ways(kind) for kind in KINDS]


def agree(payload: bytes) -> int:
    """For how many of all types the fast path has a row; it is that of the general path."""
    found = [
        (plain, ways.general(payload)) for ways in ALL_WAYS if (plain := ways.plain(payload)) is not None
    ]
    assert [plain for plain, _ in found] == [full for _, full in found]
    return len(found)


@given(METRICS, STAMPS, st.dictionaries(NAMES, VALUES, max_size=1), st.sampled_from([None, 1]))
@example({"level": 5, "n": 7}, NOW_MS, {}, None)
@example({"level": 0.3}, NOW_MS, {}, None)
def test_the_same_row_or_none(
    metrics: dict[str, Any], stamp: Any, beside: dict[str, Any], indent: int | None
) -> None:
    """Whatever devices send, for whatever type."""
    payload = json.dumps({**beside, "ts": stamp, "metrics": metrics}, indent=indent, ensure_ascii=False)
    agree(payload.encode("utf-8", "surrogatepass"))


@given(METRICS, st.none() | STAMPS, st.sampled_from([None, 1]))
@example({"level": 5, "n": 7}, NOW_MS, None)
@example({"level": 5, "n": 7}, None, None)
@example({"level": 5, "time": NOW_MS}, None, None)
@example({"level": 5, "time": NOW_MS}, NOW_MS, None)
@example({"level": 5, "sent_at": NOW_MS}, None, None)
@example({"level": 5, "message_id": "m-1"}, NOW_MS, None)
@example({"version": 1}, None, None)
def test_flat_and_untimed_readings_likewise(metrics: dict[str, Any], stamp: Any, indent: int | None) -> None:
    """Metrics beside the time or in an object of their own, with and without it."""
    timed = {} if stamp is None else {"ts": stamp}
    for tree in ({**metrics, **timed}, {**timed, **metrics}, {"metrics": metrics}):
        payload = json.dumps(tree, indent=indent, ensure_ascii=False)
        agree(payload.encode("utf-8", "surrogatepass"))


JSON_TEXT = st.text(st.sampled_from('"metrics' + string.digits + "{}[]:,\\u.-e \x00"), max_size=40)


@given(JSON_TEXT, JSON_TEXT)
@example('"level":1,"level":2', "")
@example('"level":1,"level":2,"a\\u003ab":3', "")
@example('"level":1', ',"ts":5')
@example('"level":1', ',"metrics":{"level":2}')
@example('"level":1' + "0" * 400, "")
@example('"level":1e400', "")
@example('"level":1,"stranger":2', "")
def test_the_same_row_or_none_for_any_text(inside: str, after: str) -> None:
    """Also where it is hardly JSON."""
    agree(f'{{"ts":{NOW_MS},"metrics":{{{inside}}}{after}}}'.encode())
    agree(f'{{"metrics":{{{inside}}}{after}}}'.encode())
    agree(f'{{"ts":{NOW_MS},{inside}{after}}}'.encode())


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.topic is None and case.reason != "device_disabled"],
    ids=lambda case: case.name,
)
def test_bad_input_goes_the_full_way(case: Any) -> None:
    """What ends as a dead letter, or otherwise than it came, has no fast path."""
    assert agree(case.payload) == 0 or case.reason is None


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (a_type(), FULL),
        (KINDS[2], b'{"ts": %d, "metrics": {"n": 1, "level": 10}}' % NOW_MS),
        (KINDS[2], b'{"metrics": {"level": null}, "ts": %d}' % NOW_MS),
        (KINDS[4], b'{"ts": %d, "metrics": {"text": "plain", "on": false}}' % NOW_MS),
        (KINDS[5], b'{"ts": %d, "metrics": {"any": "x", "n": 7}}' % NOW_MS),
        (KINDS[2], b'{"metrics": {"n": 1, "level": 10}}'),
        (KINDS[2], b'{"ts": %d, "n": 1, "level": 10}' % NOW_MS),
        (KINDS[2], b'{"n": 1, "level": 10, "ts": %d}' % NOW_MS),
        (KINDS[2], b'{"n": 1, "level": null}'),
        (a_type(), b'{"metrics": {"level": 5}}'),
        (a_type(), b'{"ts": %d, "level": 5}' % NOW_MS),
        (a_type(), b'{"level": 5}'),
    ],
)
def test_plain_messages_take_the_short_way(kind: DeviceType, payload: bytes) -> None:
    """Or it would be of no use, and nobody would notice."""
    assert Ways(kind).fast(payload) is not None


@pytest.mark.parametrize(
    ("payload", "rest", "options", "rules"),
    [
        (FULL, {"retain": True}, {}, {}),
        (FULL, {}, {"message_id": "property:id"}, {}),
        (FULL, {}, {"kind": "ignore"}, {}),
        (FULL, {}, {}, {"max_payload_bytes": len(FULL) - 1}),
        (FULL.replace(b"%d" % NOW_MS, b"%d" % (NOW_MS - 61_000)), {}, {}, {"max_age": 60}),
        (FULL.replace(b"%d" % NOW_MS, b"%d" % (NOW_MS + 61_000)), {}, {}, {"max_future_skew": 60}),
        (
            FULL.replace(b"%d" % NOW_MS, b"%d" % 10**12),
            {},
            {},
            {"max_age": 1e10, "min_time": "2001-09-09T01:46:41"},
        ),
        (FULL.replace(b"%d" % NOW_MS, b"202611241200"), {}, {}, {"max_age": 1e10, "min_time": "1970-01-01"}),
        (FULL.replace(b"%d" % NOW_MS, b"20261124120000"), {}, {}, {"max_future_skew": 3e10}),
        (FULL, {}, {"time_keys": ("time", "at")}, {}),
        (FULL.replace(b"a b", b"a b" + b"c" * 5000), {}, {}, {}),
        (b'{"level": 5, "at": %d}' % NOW_MS, {}, {"time_keys": ("ts", "at")}, {}),
        (b'{"level": 5, "ts": %d}' % (NOW_MS - 61_000), {}, {}, {"max_age": 60}),
        (b'{"level": 5, "ts": %d}' % 10**12, {}, {}, {"max_age": 1e10, "min_time": "2001-09-09T01:46:41"}),
    ],
)
def test_who_may_not_take_it(
    payload: bytes, rest: Mapping[str, Any], options: Mapping[str, Any], rules: Mapping[str, Any]
) -> None:
    """Retained, with an id in a property, ignored, too large, too old, too new, another time: more is to be decided."""
    assert Ways(a_type(), settings.ValidationSettings(**rules), **options).fast(payload, **rest) is None
    assert Ways(a_type()).fast(FULL) is not None


@pytest.mark.parametrize("change", ["forgotten", "learnt again"])
def test_what_the_registry_forgets_routes_do_not_remember(change: str) -> None:
    """A device that is disabled, or of another type now, has no fast path until it is looked up again."""
    ways = Ways(a_type())
    entry = ways._route.entry
    assert entry is not None
    if change == "forgotten":
        entry.forget()
    else:
        entry.learn(a_device("S-1"))
        entry.forget()
    assert ways.fast(FULL) is None


UNTIMED = b'{"metrics": {"level": %d}}'


@pytest.mark.parametrize(
    ("rest", "of_delivery", "plain"),
    [
        ({}, {}, True),
        ({"duplicate": True}, {}, True),
        ({}, {"resumed": True}, True),
        ({"duplicate": True}, {"resumed": True}, False),
        ({}, {"repeats": {1: 0}}, False),
        ({}, {"replayed": True}, False),
    ],
)
def test_an_untimed_reading_that_may_have_come_before_is_not_plain(
    rest: Mapping[str, Any], of_delivery: Mapping[str, Any], *, plain: bool
) -> None:
    """It would be stored twice: nothing but the ledger knows it again. A timed one meets itself."""
    ways = Ways(a_type())
    delivery = msgspec.structs.replace(_delivery([UNTIMED % 1, FULL], **rest), **of_delivery)
    rows, untimed = ways.rows(delivery)
    assert [row is not None for row in rows] == [plain, True]
    assert list(untimed) == [0] * plain


def test_untimed_readings_of_a_topic_are_dated_in_their_order() -> None:
    """Also where one of them takes the general path, behind which those that came later would be dated earlier."""
    ways = Ways(KINDS[2])
    rows, untimed = ways.rows(_delivery([UNTIMED % 1, UNTIMED % 2, UNTIMED % 3]))
    assert None not in rows
    assert untimed == {0: NOW_US, 1: NOW_US + 1, 2: NOW_US + 2}
    beyond_its_range = UNTIMED % 11
    rows, untimed = ways.rows(_delivery([UNTIMED % 1, beyond_its_range, FULL, UNTIMED % 3]))
    assert rows[0] is rows[1] is rows[3] is None
    assert untimed == {}
