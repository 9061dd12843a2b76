"""Is this reading believable, and what is it then stored as? Pure.

A device type says what its fields are. A violation is flagged (stored, and named in ``metadata.violations``)
or rejects the whole message, as the type decides. Times are judged against the receive time.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from gateway import clock, settings
from gateway.errors import MessageError
from gateway.messages import Device, DeviceType, Field, Reading
from gateway.outcomes import Reason

_BIGINT = -(2**63), 2**63 - 1
_LONGEST_NAME = 256

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
        minimum, maximum: of an integer also those of PostgreSQL's bigint.
    """

    believes: frozenset[type]
    accepts: frozenset[type] | None
    minimum: float
    maximum: float
    integral: bool


Check = Callable[[Reading], dict[str, str] | None]
"""Judges the fields of one reading, in place; returns what it flagged.

What cannot be read as the type of its field is moved to ``metadata.invalid``: one text in a field of numbers would make
every later query of that field fail.

Raises:
    MessageError: the device type rejects this.
"""


def field_check(kind: DeviceType) -> Check | None:
    """The check for readings of this device type; None when the type has nothing to say."""
    if not kind.fields and kind.unknown_fields == "keep":
        return None
    rules = {name: _compile(field) for name, field in kind.fields.items()}
    required = tuple(name for name, field in kind.fields.items() if field.required)
    alike = frozenset(map(_folded, kind.fields))

    def check(reading: Reading) -> dict[str, str] | None:
        flagged: dict[str, str] = {}
        strangers: list[str] = []
        metrics = reading.metrics
        for name, value in metrics.items():
            rule = rules.get(name)
            if rule is None:
                strangers.append(name)
            elif type(value) in rule.believes and rule.minimum <= value <= rule.maximum:
                continue  # nearly all; whatever is not as plain as this is judged
            elif (found := _judge(rule, name, metrics)) is not None:
                flagged[name] = found
        if required:
            flagged |= _missing(reading, required)
        if strangers:
            flagged |= _unknown_fields(metrics, strangers, alike, kind.unknown_fields)
        return _decided(reading, flagged, kind) if flagged else None

    return check


def _compile(field: Field) -> _Rule:
    types = _TYPES.get(field.data_type)
    lowest, highest = _BIGINT if field.data_type == "int" else (float("-inf"), float("inf"))
    return _Rule(
        believes=types if types and field.data_type in ("float", "int") else frozenset(),
        accepts=types,
        minimum=lowest if field.minimum is None else max(field.minimum, lowest),
        maximum=highest if field.maximum is None else min(field.maximum, highest),
        integral=field.data_type == "int",
    )


def _missing(reading: Reading, required: Sequence[str]) -> dict[str, str]:
    return {name: Reason.MISSING_FIELD for name in required if reading.metrics.get(name) is None}


def _judge(rule: _Rule, name: str, metrics: dict[str, Any]) -> str | None:
    value = metrics[name]
    if value is None:
        return None
    if rule.integral and _whole(value):
        value = metrics[name] = int(value)  # PostgreSQL reads no 3.0 as an integer
    if rule.accepts is not None and type(value) not in rule.accepts:
        return Reason.INVALID_FIELD
    if rule.integral and not _BIGINT[0] <= value <= _BIGINT[1]:
        return Reason.INVALID_FIELD
    if rule.believes and not rule.minimum <= value <= rule.maximum:
        return Reason.OUT_OF_RANGE
    return None


def _whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _unknown_fields(
    metrics: dict[str, Any], names: list[str], alike: Collection[str], unknown: str
) -> dict[str, str]:
    """What is flagged of fields that the type does not name; they are dropped, or refused, where it says so."""
    if unknown == "reject":
        raise MessageError(
            Reason.UNKNOWN_FIELD, f"the device type has no field {', '.join(sorted(names))[:200]}"
        )
    found: dict[str, str] = {name: Reason.UNKNOWN_FIELD for name in names if _folded(name) in alike}
    if unknown == "keep":
        return found | {name: Reason.BAD_SHAPE for name in names if alike and _nested(metrics[name])}
    for name in names:
        del metrics[name]
    if not metrics:
        raise MessageError(Reason.UNKNOWN_FIELD, "no known field in the reading")
    return found


def _nested(value: object) -> bool:
    """Whether there are objects in it, whose insides are not checked."""
    return type(value) is dict or (type(value) is list and any(type(item) in (dict, list) for item in value))


def _folded(name: str) -> str:
    """The name without case and Unicode form: by what is left, people take two names for one."""
    if len(name) > _LONGEST_NAME:
        return name
    if name.isascii():  # the same, in a third of the time
        return name.lower().strip()
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _decided(reading: Reading, flagged: dict[str, str], kind: DeviceType) -> dict[str, str]:
    """The flagged; what queries could not read is in the metadata from now on."""
    if kind.violations == "reject":
        raise _rejection(reading, flagged, kind)
    invalid = [name for name, reason in flagged.items() if reason == Reason.INVALID_FIELD]
    if invalid:
        _keep_aside(reading, {name: reading.metrics.pop(name) for name in invalid})
    return flagged


def _keep_aside(reading: Reading, values: Mapping[str, Any]) -> None:
    """What the device sent and is not stored as data, for people to look at."""
    metadata = reading.metadata or {}
    reading.metadata = {**metadata, "invalid": {**metadata.get("invalid", {}), **values}}


def flag_time(
    reading: Reading, time_us: int, kind: DeviceType, flagged: dict[str, str] | None
) -> dict[str, str] | None:
    """The flagged, of a reading that gets this receive time although the device seems to have sent a time.

    Raises:
        MessageError: the device type rejects this.
    """
    if reading.time_us is not None:  # the policy for times that are not believed decides, not the type
        _keep_aside(reading, {"time": _shown(reading.time_us)})
        reason = Reason.IN_THE_FUTURE if reading.time_us > time_us else Reason.TOO_OLD
        return {**(flagged or {}), "time": reason}
    name = reading.unused_time
    if name is None or name in kind.fields:
        return flagged
    if kind.violations == "reject":
        raise MessageError(
            Reason.UNUSED_TIME,
            f"{name} seems to be the time, and is none of the stream's time_keys nor a field of {kind.name}",
        )
    return {**(flagged or {}), name: Reason.UNUSED_TIME}


def _rejection(reading: Reading, flagged: dict[str, str], kind: DeviceType) -> MessageError:
    name, reason = next(iter(flagged.items()))
    field, value = kind.fields.get(name), reading.metrics.get(name)
    if field is None:
        what = "holds an object" if reason == Reason.BAD_SHAPE else "is a field in another spelling"
        detail = f"{name[:200]} {what}, and is no field of device type {kind.name}"
    elif reason == Reason.OUT_OF_RANGE:
        low, high = (("" if bound is None else bound) for bound in (field.minimum, field.maximum))
        detail = f"{name} = {value} is outside {low} … {high} {field.unit or ''}".rstrip()
    elif reason == Reason.MISSING_FIELD:
        detail = f"{name} is required by device type {kind.name}"
    else:
        detail = f"{name} should be {field.data_type}, not {type(value).__name__}"
    return MessageError(Reason(reason), detail)


class TimeCheck:
    """Judges timestamps, and gives a time to readings that have none."""

    def __init__(self, rules: settings.ValidationSettings) -> None:
        self._skew_us = round(rules.max_future_skew * clock.MICROS)
        self._age_us = round(rules.max_age * clock.MICROS)
        self._min_us, self._min_time = clock.from_datetime(rules.min_time), rules.min_time
        self._on_future, self._on_old = rules.on_future, rules.on_old

    def judge(self, time_us: int | None, received_us: int) -> int | None:
        """The time to store, µs; None: the receive time.

        Raises:
            MessageError: outside the believable, and the policy is to reject.
        """
        if time_us is None or (
            self._min_us <= time_us <= received_us + self._skew_us and received_us - time_us <= self._age_us
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
        text = _shown(time_us)
        if future:
            raise MessageError(
                Reason.IN_THE_FUTURE, f"{text} is more than {self._skew_us // clock.MICROS} s ahead"
            )
        if time_us < self._min_us:
            since = f"before {self._min_time.isoformat()} (validation.min_time)"
            raise MessageError(Reason.TOO_OLD, f"{text} is {since}: is the device's clock set?")
        raise MessageError(Reason.TOO_OLD, f"{text} is older than is believed (validation.max_age)")


def _shown(time_us: int) -> str:
    return clock.to_datetime(time_us).isoformat() if abs(time_us) < _SHOWABLE_US else f"{time_us} µs"


_SHOWABLE_US = 50_000_000_000 * clock.MICROS


def receive_time(device: Device, received_us: int) -> int:
    """A receive time of this device's own: strictly increasing, also when the clock stands still or jumps back."""
    device.last_receive_us = max(received_us, device.last_receive_us + 1)
    return device.last_receive_us
