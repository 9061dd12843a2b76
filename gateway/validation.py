"""Is this reading believable, and what is it then stored as? Pure.

A device type says what its fields are. A violation is flagged (stored, and named in ``metadata.violations``)
or rejects the whole message, as the type decides. Times are judged against the receive time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway import clock, settings
from gateway.errors import MessageError
from gateway.messages import Device, DeviceType, Field, Reading
from gateway.outcomes import Reason

_NO_CLOCK_BEFORE_US = 365 * 86_400 * clock.MICROS
"""Until 1971: a device that counts from its own start, or never set its clock."""

_TYPES: dict[str, frozenset[type]] = {
    "float": frozenset((int, float)),
    "int": frozenset((int,)),
    "bool": frozenset((bool,)),
    "text": frozenset((str,)),
}


class _Rule(msgspec.Struct, gc=False):
    """A field, compiled.

    Attributes:
        believes: the types of a number, of which only the bounds are left to judge; empty where none is wanted.
    """

    believes: frozenset[type]
    accepts: frozenset[type] | None
    minimum: float
    maximum: float
    integral: bool


Check = Callable[[Reading], dict[str, str] | None]
"""Judges the fields of one reading, in place; returns what it flagged.

Raises:
    MessageError: the device type rejects this.
"""


def field_check(kind: DeviceType) -> Check | None:
    """The check for readings of this device type; None when the type has nothing to say."""
    if not kind.fields and kind.unknown_fields == "keep":
        return None
    rules = {name: _compile(field) for name, field in kind.fields.items()}
    required = tuple(name for name, field in kind.fields.items() if field.required)
    unknown, reject = kind.unknown_fields, kind.violations == "reject"

    def check(reading: Reading) -> dict[str, str] | None:
        flagged: dict[str, str] = {}
        strangers: list[str] = []
        for name, value in reading.metrics.items():
            rule = rules.get(name)
            if rule is None:
                strangers.append(name)
            elif type(value) in rule.believes and rule.minimum <= value <= rule.maximum:
                continue  # nearly all; whatever is not as plain as this is judged
            elif (found := _judge(rule, value)) is not None:
                flagged[name] = found
        if required:
            flagged |= _missing(reading, required)
        if strangers and unknown != "keep":
            _strangers(reading, strangers, unknown)
        if flagged and reject:
            raise _rejection(reading, flagged, kind)
        return flagged or None

    return check


def _compile(field: Field) -> _Rule:
    types = _TYPES.get(field.data_type)
    return _Rule(
        believes=types if types and field.data_type in ("float", "int") else frozenset(),
        accepts=types,
        minimum=float("-inf") if field.minimum is None else field.minimum,
        maximum=float("inf") if field.maximum is None else field.maximum,
        integral=field.data_type == "int",
    )


def _missing(reading: Reading, required: Sequence[str]) -> dict[str, str]:
    return {name: Reason.MISSING_FIELD for name in required if reading.metrics.get(name) is None}


def _judge(rule: _Rule, value: Any) -> str | None:
    if value is None:
        return None
    kind = type(value)
    if rule.accepts is not None and kind not in rule.accepts and not (rule.integral and _whole(value)):
        return Reason.INVALID_FIELD
    if rule.believes and not rule.minimum <= value <= rule.maximum:
        return Reason.OUT_OF_RANGE
    return None


def _whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _strangers(reading: Reading, names: list[str], unknown: str) -> None:
    if unknown == "reject":
        raise MessageError(
            Reason.UNKNOWN_FIELD, f"the device type has no field {', '.join(sorted(names))[:200]}"
        )
    for name in names:
        del reading.metrics[name]
    if not reading.metrics:
        raise MessageError(Reason.UNKNOWN_FIELD, "no known field in the reading")


def _rejection(reading: Reading, flagged: dict[str, str], kind: DeviceType) -> MessageError:
    name, reason = next(iter(flagged.items()))
    field, value = kind.fields[name], reading.metrics.get(name)
    if reason == Reason.OUT_OF_RANGE:
        low, high = (("" if bound is None else bound) for bound in (field.minimum, field.maximum))
        detail = f"{name} = {value} is outside {low} … {high} {field.unit or ''}".rstrip()
    elif reason == Reason.MISSING_FIELD:
        detail = f"{name} is required by device type {kind.name}"
    else:
        detail = f"{name} should be {field.data_type}, not {type(value).__name__}"
    return MessageError(Reason(reason), detail)


class TimeCheck:
    """Judges timestamps, and gives a time to readings that have none."""

    def __init__(self, rules: settings.Validation) -> None:
        self._skew_us = round(rules.max_future_skew * clock.MICROS)
        self._age_us = round(rules.max_age * clock.MICROS)
        self._on_future, self._on_old = rules.on_future, rules.on_old

    def judge(self, time_us: int | None, received_us: int) -> int | None:
        """The time to store, µs; None: the receive time.

        Raises:
            MessageError: outside the believable, and the policy is to reject.
        """
        if time_us is None or (
            _NO_CLOCK_BEFORE_US <= time_us <= received_us + self._skew_us
            and received_us - time_us <= self._age_us
        ):
            return time_us
        return self._doubtful(time_us, received_us)

    def _doubtful(self, time_us: int, received_us: int) -> int | None:
        future = time_us > received_us
        policy = self._on_future if future else self._on_old
        if policy == "keep":
            return time_us
        if policy == "receive_time":
            return None
        text = clock.to_datetime(time_us).isoformat() if abs(time_us) < _SHOWABLE_US else f"{time_us} µs"
        if future:
            raise MessageError(
                Reason.IN_THE_FUTURE, f"{text} is more than {self._skew_us // clock.MICROS} s ahead"
            )
        raise MessageError(
            Reason.TOO_OLD, f"{text} is older than is believed (validation.max_age, or before 1971)"
        )


_SHOWABLE_US = 50_000_000_000 * clock.MICROS


def receive_time(device: Device, received_us: int) -> int:
    """A receive time of this device's own: strictly increasing, also when the clock stands still or jumps back."""
    device.last_receive_us = max(received_us, device.last_receive_us + 1)
    return device.last_receive_us
