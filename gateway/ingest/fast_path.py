"""The fast path of a plain message: from payload to row in one step, nearly all of it inside msgspec.

Plain is an object of ``ts`` in milliseconds, or of no time, and its metrics, in ``metrics`` or beside the time, nothing
else, with a believable time and with values that all are as the device type declares them. Nothing can be wrong with
such a message, so nothing has to be said. All others take the general path (``intake``); a plain one comes to the same
bytes on either, at a third of the cost.

Hazard: msgspec skips keys that it does not know and keeps the last of equal ones, both silently. As many colons in the
payload as keys in the result: nothing was lost. No backslash: no escaped colon, no NUL, no surrogate.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Required, TypedDict

import msgspec
from msgspec import Meta

from gateway import clock, settings
from gateway.decoders import time_names
from gateway.ingest.new_chunks import FRESH_US
from gateway.ingest.validation import receive_time
from gateway.messages import Device, DeviceType, FastRow, Field, Receipt
from gateway.writer.layouts.document import DOCUMENT, encoding

LAYOUT = DOCUMENT
"""The layout of the rows made here."""
TIME_KEY = "ts"
_EARLIEST_MS, _LATEST_MS = 10**12, 10**13
"""Whole numbers between these are milliseconds of 2001 to 2286, and no date-times in digits."""
_LONGEST = 4096
"""Bytes: numbers like 1e308 cost msgspec 2 µs a byte, and the general path knows another way to read them."""
_INT64 = 2**63
_COLON, _BACKSLASH, _BRACE = b":\\{"

_dict: Any = dict
_typed_dict: Any = TypedDict
_required: Any = Required
"""Fields are known when a device type is, not when mypy looks."""


def fast_row(kind: DeviceType, rules: settings.ValidationSettings) -> FastRow | None:
    """The fast path for devices of this type; None when no message of theirs can be plain."""
    metrics_type = _metrics_type(kind)
    if metrics_type is None:
        return None
    decode = msgspec.json.Decoder(_envelope(metrics_type, rules)).decode
    decode_flat = msgspec.json.Decoder(_flat_type(kind)).decode
    largest = min(rules.max_payload_bytes, _LONGEST)
    earliest_ms = _earliest_ms(rules)
    skew_us = min(FRESH_US, round(rules.max_future_skew * clock.MICROS))
    age_us = min(FRESH_US, round(rules.max_age * clock.MICROS))

    def row(
        payload: bytes, device: Device, reserved: frozenset[str], at: int, receipt: Receipt
    ) -> bytes | None:
        if len(payload) > largest:
            return None
        try:
            if nested := payload.count(_BRACE) > 1:
                found = decode(payload)
                metrics, stamp = found.metrics, found.ts
                keys = len(metrics) + (1 if stamp is None else 2)
            else:
                metrics = decode_flat(payload)
                keys, stamp = len(metrics), metrics.pop(TIME_KEY, None)
            if (
                metrics
                and payload.count(_COLON) == keys
                and _BACKSLASH not in payload
                and (nested or (reserved.isdisjoint(metrics) and _is_stamp(stamp, earliest_ms)))
            ):
                received_us = receipt.received_us
                if stamp is None:
                    return _untimed_row(kind, metrics, device, at, receipt)
                time_us = stamp * 1000
                if received_us - age_us <= time_us <= received_us + skew_us:
                    return encoding.encode(time_us, device.columns, metrics, None, received_us)
        except Exception:  # msgspec refuses it; or a defect, for which only the general path has an end
            return None
        return None

    return row


def _is_stamp(stamp: object, earliest_ms: int) -> bool:
    """Whether a type without fields, which takes all values, got a plain time here, or none."""
    return stamp is None or (type(stamp) is int and earliest_ms <= stamp < _LATEST_MS)


def _untimed_row(
    kind: DeviceType, metrics: dict[str, Any], device: Device, at: int, receipt: Receipt
) -> bytes | None:
    """The row of a reading without a time: it takes the receive time. What may be meant as one is not plain."""
    if receipt.untimed is None or not (kind.fields or time_names.unused(metrics) is None):
        return None
    time_us = receive_time(device, receipt.received_us)
    encoded = encoding.encode(time_us, device.columns, metrics, None, receipt.received_us)
    receipt.untimed[at] = time_us
    return encoded


def _earliest_ms(rules: settings.ValidationSettings) -> int:
    return max(_EARLIEST_MS, -(-clock.from_datetime(rules.min_time) // 1000))


def _envelope(metrics_type: Any, rules: settings.ValidationSettings) -> Any:
    stamp = Annotated[int, Meta(ge=_earliest_ms(rules), lt=_LATEST_MS)]
    fields: list[Any] = [("metrics", metrics_type), (TIME_KEY, stamp | None, None)]
    return msgspec.defstruct("Plain", fields, forbid_unknown_fields=True, gc=False)


def _flat_type(kind: DeviceType) -> Any:
    """A whole message whose metrics stand beside its time; of nothing where a field has a name of the envelope."""
    if not kind.fields:
        return _dict[str, _scalar() | None]
    clash = TIME_KEY in kind.fields or not settings.ENVELOPE_KEYS.isdisjoint(kind.fields)
    fields = {} if clash else {name: _value(field) for name, field in kind.fields.items()}
    return _typed_dict("Flat", {TIME_KEY: int, **fields}, total=False)


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
