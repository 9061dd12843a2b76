"""Native JSON.

Accepted, alone or in an array::

    {"ts": 1700000000000, "metrics": {"temperature": 21.5}, "metadata": {…}, "message_id": "…"}
    {"version": "0.0.1", "serial_number": "VIB-SN-001", "metrics": {"vibration": 5.2}}
    {"temperature": 21.5, "ts": "2026-11-20T12:00:00Z"}

The time stands under the first of the stream's ``time_keys`` that is there and not null. What else stands beside
``metrics`` is kept in the reading's metadata. ``docs/payloads.md`` tells all of it.

msgspec is fast because it does not look for duplicate keys, for NUL in strings, nor at the depth. Cheap
necessary conditions on the bytes decide whether a closer look is due; nearly no payload needs one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway.decoders import json_faults, paths, time_names, timestamps
from gateway.decoders.base import Decode, Limits
from gateway.decoders.json_faults import LONGEST_NUMBER
from gateway.errors import MessageError
from gateway.messages import Reading
from gateway.outcomes import Reason

_SAME_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_TOO_MANY_DIGITS = b"0" * (LONGEST_NUMBER + 1)
_FAR_EXPONENTS = re.compile(rb"e[+-]?[0-9]{3}"), re.compile(rb"E[+-]?[0-9]{3}")
"""Numbers like 1e308, for which msgspec takes 10 µs each: 1.6 s for as many as a message of 1 MB holds. Two patterns,
for a letter to begin with is looked for five times as fast as one of two."""
_COLON, _BACKSLASH, _BRACKET, _BRACE, _COMMA = b":\\[{,"
"""As numbers: to look for one in bytes takes a third of the time that one-byte bytes take."""
_ENVELOPE = ("serial_number", "metadata", "message_id", "version")
_FOREIGN_ENVELOPES = frozenset(
    (
        "data",
        "fields",
        "measurements",
        "metric",
        "metrics",
        "payload",
        "readings",
        "telemetry",
        "value",
        "values",
    )
)
"""Under which other formats have what we call metrics; none is a metric of its own when nothing stands beside it."""


class _BadReadingError(Exception):
    """What is wrong in a reading, and where in it."""

    def __init__(self, reason: Reason, what: str, *path: str | int) -> None:
        super().__init__(what)
        self.reason, self.what, self.path = reason, what, path

    def at(self, *before: int) -> MessageError:
        """The refusal of the message, with the path from its root."""
        return MessageError(self.reason, paths.at_path((*before, *self.path), self.what))


def decoder(limits: Limits) -> Decode:
    """A decoder of native JSON."""
    parse = msgspec.json.Decoder().decode
    parse_long = _long_parser(limits.max_values)

    def decode(payload: bytes) -> list[Reading]:
        try:
            tree = parse(payload) if len(payload) <= LONGEST_NUMBER else parse_long(payload)
        except (ValueError, RecursionError):
            raise json_faults.explain(payload) from None
        if not (type(tree) is dict and _plain(tree, payload)):
            _look_closer(tree, payload, limits)
        if type(tree) is not dict:
            return _many(tree, limits)
        try:
            return [_reading(tree, limits)]
        except _BadReadingError as bad:
            raise bad.at() from None

    return decode


def _long_parser(max_values: int) -> Callable[[bytes], Any]:
    """A parser whose time is bounded by the length, whatever the payload is made of."""
    parse, parse_far = msgspec.json.Decoder().decode, msgspec.json.Decoder(float_hook=_far_float).decode

    def parse_long(payload: bytes) -> Any:
        if (
            payload.count(_COMMA) >= max_values
            or payload.count(_BRACKET) + payload.count(_BRACE) > max_values
        ):
            json_faults.check_count(payload, max_values)
        far = any(pattern.search(payload) for pattern in _FAR_EXPONENTS)
        return parse_far(payload) if far else parse(payload)

    return parse_long


def _far_float(digits: str) -> float:
    """Python's own reading of a number; beyond double precision it is refused, like by msgspec."""
    value = float(digits)
    if math.isinf(value):
        raise ValueError
    return value


def _plain(tree: dict[str, Any], payload: bytes) -> bool:
    """Whether the bytes of this object cannot hide anything, as nearly all cannot.

    As many colons as keys: no key stood there twice, no object is nested but the metrics. No bracket: no array. No
    backslash: no NUL, no surrogate. Short: no endless number. What this is not sure of gets the closer look.
    """
    metrics = tree.get("metrics")
    return (
        payload.count(_COLON) == len(tree) + (len(metrics) if type(metrics) is dict else 0)
        and _BACKSLASH not in payload
        and _BRACKET not in payload
        and len(payload) <= LONGEST_NUMBER
    )


def _look_closer(tree: object, payload: bytes, limits: Limits) -> None:
    if payload.count(b"{") + payload.count(b"[") > limits.max_depth:
        json_faults.check_depth(tree, limits.max_depth)
    # An escaped colon is none in the bytes: it could stand in for that of a lost key.
    if payload.count(_COLON) != _colons(tree) or b"\\u003" in payload:
        json_faults.check_keys(payload)
    if _BACKSLASH in payload:
        json_faults.check_text(tree)
    if len(payload) > LONGEST_NUMBER and _TOO_MANY_DIGITS in payload.translate(_SAME_DIGITS):
        json_faults.check_numbers(tree)


def _many(tree: object, limits: Limits) -> list[Reading]:
    if not isinstance(tree, list):
        raise MessageError(Reason.BAD_SHAPE, f"a reading is an object, not {_kind(tree)}")
    if not 0 < len(tree) <= limits.max_readings:
        raise MessageError(
            Reason.BAD_SHAPE, f"{len(tree)} readings in one message: 1 to {limits.max_readings} may be"
        )
    readings: list[Reading] = []
    try:
        for item in tree:
            readings.append(_reading(item, limits))  # noqa: PERF401 - how far it came is the index of the bad one
    except _BadReadingError as bad:
        raise bad.at(len(readings)) from None
    return readings


def _reading(tree: object, limits: Limits) -> Reading:
    if type(tree) is not dict:
        raise _BadReadingError(Reason.BAD_SHAPE, f"a reading is an object, not {_kind(tree)}")
    time_us, time_keys = None, limits.time_keys
    for key in time_keys:
        if (stamp := tree.get(key)) is not None:
            time_us = _time(stamp, key, limits)
            break
    metrics = tree.get("metrics")
    if type(metrics) is dict and metrics and len(tree) == (1 if time_us is None else 2):
        reading = Reading(metrics, time_us)
    else:
        # The keys before the one that counts are null, where they are there.
        used = time_keys if time_us is None else time_keys[: time_keys.index(key) + 1]
        reading = (_nested if "metrics" in tree else _flat)(tree, used, time_us)
    if time_us is None:
        reading.unused_time = time_names.unused(tree) or time_names.unused(reading.metrics)
    return reading


def _time(stamp: object, key: str, limits: Limits) -> int:
    try:
        return timestamps.parse(stamp, limits.zone)
    except MessageError as refused:
        raise _BadReadingError(refused.reason, refused.detail, key) from None


def _nested(tree: dict[str, Any], used: Sequence[str], time_us: int | None) -> Reading:
    """A reading with its metrics in an object, and more beside it."""
    metrics = tree["metrics"]
    if type(metrics) is not dict:
        what = f"an object of names and values, not {_kind(metrics)}"
        raise _BadReadingError(Reason.BAD_SHAPE, what, "metrics")
    beside = {name: value for name, value in tree.items() if name != "metrics" and name not in used}
    return _with_rest(_some(metrics), time_us, beside)


def _flat(tree: dict[str, Any], used: Sequence[str], time_us: int | None) -> Reading:
    """A reading whose metrics stand beside its time."""
    beside = {name: tree[name] for name in _ENVELOPE if name in tree}
    metrics = {name: value for name, value in tree.items() if name not in used and name not in beside}
    if len(metrics) == 1:
        _refuse_foreign(metrics)
    return _with_rest(_some(metrics), time_us, beside) if beside else Reading(_some(metrics), time_us)


def _refuse_foreign(metrics: dict[str, Any]) -> None:
    """An object that holds the metrics under another format's name is no metric; a list of numbers is one."""
    ((name, value),) = metrics.items()
    holds_objects = type(value) is dict or (type(value) is list and any(type(item) is dict for item in value))
    if holds_objects and name.lower() in _FOREIGN_ENVELOPES:
        what = f'{_kind(value)}: the metrics of a reading stand beside its time, or in "metrics"'
        raise _BadReadingError(Reason.BAD_SHAPE, what, name)


def _with_rest(metrics: dict[str, Any], time_us: int | None, rest: dict[str, Any]) -> Reading:
    """A reading whose envelope says more than time and metrics."""
    device = _text(rest.pop("serial_number", None), "serial_number")
    message_id = _text(rest.pop("message_id", None), "message_id")
    metadata = rest.pop("metadata", None)
    if metadata is None:
        return Reading(metrics, time_us, device, rest or None, message_id)
    if type(metadata) is not dict:
        raise _BadReadingError(Reason.BAD_SHAPE, f"an object, not {_kind(metadata)}", "metadata")
    for name in rest.keys() & metadata.keys():
        raise _BadReadingError(
            Reason.DUPLICATE_KEY, "stands beside the metadata too, where it would go", "metadata", name
        )
    return Reading(metrics, time_us, device, {**rest, **metadata} or None, message_id)


def _some(metrics: dict[str, Any]) -> dict[str, Any]:
    if not metrics:
        raise _BadReadingError(Reason.BAD_SHAPE, "no metrics in the reading")
    return metrics


def _text(value: object, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _BadReadingError(Reason.BAD_SHAPE, f"text, not {_kind(value)}", name)


def _colons(tree: object) -> int:
    """How many colons the text of this value holds at least, when no key stands in it twice."""
    if type(tree) is dict:
        return len(tree) + sum(_colons_inside(key, value) for key, value in tree.items())
    if type(tree) is list:
        return sum(map(_colons, tree))
    return tree.count(":") if type(tree) is str else 0


def _colons_inside(key: str, value: object) -> int:
    kind = type(value)
    return key.count(":") + (0 if kind is float or kind is int else _colons(value))


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
