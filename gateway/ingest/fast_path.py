"""The fast path of a plain message: from payload to row in one step, nearly all of it inside msgspec.

Plain is an object of ``ts`` in milliseconds and ``metrics``, nothing else, with a believable time and with values that
all are as the device type declares them. Nothing can be wrong with such a message, so nothing has to be said. All
others take the general path (``intake``); a plain one comes to the same bytes on either, at a third of the cost.

Hazard: msgspec skips keys that it does not know and keeps the last of equal ones, both silently. As many colons in the
payload as keys in the result: nothing was lost. No backslash: no escaped colon, no NUL, no surrogate.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Required, TypedDict

import msgspec
from msgspec import Meta

from gateway import clock, settings
from gateway.messages import DeviceType, Field, PlainRow
from gateway.writer.layouts.document import DOCUMENT, encoding

LAYOUT = DOCUMENT
"""The layout of the rows made here."""
TIME_KEY = "ts"
_EARLIEST_MS, _LATEST_MS = 10**12, 10**13
"""Whole numbers between these are milliseconds of 2001 to 2286, and no date-times in digits."""
_LONGEST = 4096
"""Bytes: numbers like 1e308 cost msgspec 2 µs a byte, and the general path knows another way to read them."""
_INT64 = 2**63
_ENVELOPE = 2
"""Keys beside those of the metrics."""
_COLON, _BACKSLASH = b":\\"

_dict: Any = dict
_typed_dict: Any = TypedDict
_required: Any = Required
"""Fields are known when a device type is, not when mypy looks."""


def plain_row(kind: DeviceType, rules: settings.ValidationSettings) -> PlainRow | None:
    """The fast path for devices of this type; None when no message of theirs can be plain."""
    metrics_type = _metrics_type(kind)
    if metrics_type is None:
        return None
    decode = msgspec.json.Decoder(_envelope(metrics_type, rules)).decode
    largest = min(rules.max_payload_bytes, _LONGEST)
    skew_us = round(rules.max_future_skew * clock.MICROS)
    age_us = round(rules.max_age * clock.MICROS)

    def row(payload: bytes, received_us: int, columns: bytes) -> bytes | None:
        if len(payload) > largest:
            return None
        try:
            found = decode(payload)
            metrics, time_us = found.metrics, found.ts * 1000
            if (
                metrics
                and received_us - age_us <= time_us <= received_us + skew_us
                and payload.count(_COLON) == len(metrics) + _ENVELOPE
                and _BACKSLASH not in payload
            ):
                return encoding.encode(time_us, columns, metrics, None, received_us)
        except Exception:  # msgspec refuses it; or a defect, for which only the general path has an end
            return None
        return None

    return row


def _envelope(metrics_type: Any, rules: settings.ValidationSettings) -> Any:
    earliest_ms = max(_EARLIEST_MS, -(-clock.from_datetime(rules.min_time) // 1000))
    stamp = Annotated[int, Meta(ge=earliest_ms, lt=_LATEST_MS)]
    fields = [(TIME_KEY, stamp), ("metrics", metrics_type)]
    return msgspec.defstruct("Plain", fields, forbid_unknown_fields=True, gc=False)


def _metrics_type(kind: DeviceType) -> Any:
    """The metrics as the type declares them; None when none can be plain."""
    if not kind.fields:
        return _dict[str, _scalar() | None] if kind.unknown_fields == "keep" else None
    bounds = [bound for field in kind.fields.values() for bound in (field.minimum, field.maximum)]
    if not all(bound is None or abs(bound) < _INT64 for bound in bounds):
        return None  # msgspec compares whole numbers with bounds of 64 bits only
    return _typed_dict("Metrics", {name: _value(field) for name, field in kind.fields.items()}, total=False)


def _value(field: Field) -> Any:
    """What the field may hold, and be stored with no more said."""
    accepted = {
        "float": _whole(field) | _fraction(field),
        "int": _whole(field),
        "bool": bool,
        "text": str,
    }.get(field.data_type, _scalar())
    return _required[accepted] if field.required else accepted | None


def _whole(field: Field) -> Any:
    """Within 64 bits: beyond, the digits have to be counted."""
    low = -_INT64 if field.minimum is None else math.ceil(field.minimum)
    high = _INT64 - 1 if field.maximum is None else math.floor(field.maximum)
    return Annotated[int, Meta(ge=low, le=high)]


def _fraction(field: Field) -> Any:
    return Annotated[float, Meta(ge=field.minimum, le=field.maximum)]


def _scalar() -> Any:
    return Annotated[int, Meta(ge=-_INT64, le=_INT64 - 1)] | float | str | bool
