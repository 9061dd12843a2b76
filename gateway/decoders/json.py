"""Native JSON.

Accepted, alone or in an array::

    {"ts": 1700000000000, "metrics": {"temperature": 21.5}, "metadata": {…}, "message_id": "…"}
    {"version": "0.0.1", "serial_number": "VIB-SN-001", "metrics": {"vibration": 5.2}}
    {"temperature": 21.5, "ts": "2026-11-20T12:00:00Z"}

The timestamp may be called ``ts``, ``timestamp`` or ``time``. What else stands beside ``metrics`` is kept in
the reading's metadata.

msgspec is fast because it does not look for duplicate keys, for NUL in strings, nor at the depth. Cheap
necessary conditions on the bytes decide whether a closer look is due; nearly no payload needs one.
"""

from __future__ import annotations

import collections
import json
import math
import re
from typing import Any

import msgspec

from gateway.decoders import timestamps
from gateway.decoders.base import Decode, Limits
from gateway.errors import MessageError
from gateway.messages import Reading
from gateway.outcomes import Reason

_TIME_KEYS = ("ts", "timestamp", "time")
_LONGEST_NUMBER = 308
"""Digits; an integer with more may be beyond double precision, and would break every rollup that meets it."""
_DIGITS = re.compile(rb"(?<![0-9])[0-9]{309}")
"""From the first digit of a number only: to begin at each would take its length squared."""
_COLON, _BACKSLASH, _BRACKET = b":\\["
"""As numbers: to look for one in bytes takes a third of the time that one-byte bytes take."""


def decoder(limits: Limits) -> Decode:
    """A decoder of native JSON."""
    parse = msgspec.json.Decoder().decode

    def decode(payload: bytes) -> list[Reading]:
        try:
            tree = parse(payload)
        except (ValueError, RecursionError):
            raise _explain(payload, limits) from None
        if not (type(tree) is dict and _plain(tree, payload)):
            _look_closer(tree, payload, limits)
        return [_reading(tree, limits)] if type(tree) is dict else _many(tree, limits)

    return decode


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
        and len(payload) <= _LONGEST_NUMBER
    )


def _look_closer(tree: object, payload: bytes, limits: Limits) -> None:
    if payload.count(b"{") + payload.count(b"[") > limits.max_depth:
        _check_depth(tree, limits.max_depth)
    # An escaped colon is none in the bytes: it could stand in for that of a lost key.
    if payload.count(_COLON) != _colons(tree) or b"\\u003" in payload:
        _check_keys(payload)
    if _BACKSLASH in payload:
        _check_text(tree)
    if len(payload) > _LONGEST_NUMBER and _DIGITS.search(payload):
        _check_numbers(tree)


def _many(tree: object, limits: Limits) -> list[Reading]:
    if not isinstance(tree, list):
        raise MessageError(Reason.BAD_SHAPE, f"a reading is an object, not {_kind(tree)}")
    if not 0 < len(tree) <= limits.max_readings:
        raise MessageError(
            Reason.BAD_SHAPE, f"{len(tree)} readings in one message: 1 to {limits.max_readings} may be"
        )
    return [_reading(item, limits) for item in tree]


def _reading(tree: object, limits: Limits) -> Reading:
    if type(tree) is not dict:
        raise MessageError(Reason.BAD_SHAPE, f"a reading is an object, not {_kind(tree)}")
    time_us = None
    for key in _TIME_KEYS:
        if key in tree:
            stamp = tree[key]
            time_us = None if stamp is None else timestamps.parse(stamp, limits.zone)
            break
    else:
        key = ""
    metrics = tree.get("metrics")
    if type(metrics) is dict:
        if len(tree) == (2 if key else 1):
            return Reading(_some(metrics), time_us)
        rest = {name: value for name, value in tree.items() if name not in ("metrics", key)}
        return _with_rest(_some(metrics), time_us, rest)
    rest = {
        name: tree[name] for name in ("serial_number", "metadata", "message_id", "version") if name in tree
    }
    metrics = {name: value for name, value in tree.items() if name != key and name not in rest}
    return _with_rest(_some(metrics), time_us, rest) if rest else Reading(_some(metrics), time_us)


def _with_rest(metrics: dict[str, Any], time_us: int | None, rest: dict[str, Any]) -> Reading:
    """A reading whose envelope says more than time and metrics."""
    device = _text(rest.pop("serial_number", None), "serial_number")
    message_id = _text(rest.pop("message_id", None), "message_id")
    metadata = rest.pop("metadata", None)
    if metadata is not None and type(metadata) is not dict:
        raise MessageError(Reason.BAD_SHAPE, f"metadata is an object, not {_kind(metadata)}")
    return Reading(metrics, time_us, device, {**rest, **(metadata or {})} or None, message_id)


def _some(metrics: dict[str, Any]) -> dict[str, Any]:
    if not metrics:
        raise MessageError(Reason.BAD_SHAPE, "no metrics in the reading")
    return metrics


def _text(value: object, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise MessageError(Reason.BAD_SHAPE, f"{name} is text, not {_kind(value)}")


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


def _check_keys(payload: bytes) -> None:
    """The closer look: msgspec keeps the last of equal keys, so a reading would silently lose the others."""
    json.loads(payload, object_pairs_hook=_unique, parse_int=len, parse_float=len)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        twice = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MessageError(Reason.DUPLICATE_KEY, f"the key {twice[:60]!r} stands twice in one object")
    return tree


def _check_text(tree: object) -> None:
    """Escapes can smuggle in NUL, which PostgreSQL's text and jsonb cannot hold."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            _check_text(key)
            _check_text(value)
    elif isinstance(tree, list):
        for value in tree:
            _check_text(value)
    elif isinstance(tree, str) and "\0" in tree:
        raise MessageError(Reason.BAD_TEXT, "NUL (\\u0000) in a string: PostgreSQL cannot store it")


def _check_depth(tree: object, left: int) -> None:
    if not isinstance(tree, dict | list):
        return
    if left == 0:
        raise MessageError(Reason.TOO_DEEP, "nested deeper than validation.max_depth")
    for value in tree.values() if isinstance(tree, dict) else tree:
        _check_depth(value, left - 1)


def _check_numbers(tree: object) -> None:
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            _check_numbers(value)
    elif isinstance(tree, int):
        _refuse_long(str(tree))


def _explain(payload: bytes, limits: Limits) -> MessageError:
    """Why the fast parser refused: its texts name positions, not reasons, and it mistakes some."""
    if not payload.strip():
        return MessageError(Reason.EMPTY, "the payload is empty")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        return MessageError(Reason.NOT_UTF8, f"byte {error.start} is no UTF-8")
    try:
        json.loads(
            text, parse_constant=_refuse_constant, parse_int=_refuse_long, parse_float=_refuse_infinite
        )
    except MessageError as error:
        return error
    except RecursionError:
        return MessageError(Reason.TOO_DEEP, "nested deeper than validation.max_depth")
    except ValueError as error:
        return MessageError(Reason.MALFORMED, f"not JSON: {error}")
    return MessageError(Reason.BAD_TEXT, "a lone surrogate in a string: no UTF-8 text can hold it")


def _refuse_constant(name: str) -> object:
    raise MessageError(Reason.BAD_NUMBER, f"{name} is no JSON number")


def _refuse_long(digits: str) -> object:
    if len(digits) > _LONGEST_NUMBER and math.isinf(float(digits)):
        raise MessageError(Reason.BAD_NUMBER, f"a number of {len(digits)} digits is beyond double precision")
    return 0


def _refuse_infinite(digits: str) -> object:
    if float(digits) in (float("inf"), float("-inf")):
        raise MessageError(Reason.BAD_NUMBER, f"{digits[:40]} is beyond double precision")
    return 0.0


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
