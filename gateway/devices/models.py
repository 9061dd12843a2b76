"""What operators enter into the registry, checked, and what they get back."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Self, TypeVar

import pydantic
import pydantic_core
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gateway import errors
from gateway.outcomes import DataType, DeviceState, UnknownFields, Violations

SERIAL_NUMBER_LENGTH = 255
_DEEPEST = 32
"""Levels of metadata; pydantic reads 200 at most."""
TOO_DEEP = f"nested too deep: {_DEEPEST} levels may be"

# NUL and lone surrogates cannot be stored; other control characters are mistakes, and harm terminals.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _clean(text: str) -> str:
    if _FORBIDDEN.search(text):
        raise ValueError("control characters, or not UTF-8")
    return text


def _named(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError("empty, or with spaces around")
    return _clean(text)


def _slug(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError("write at most 63 of a-z A-Z 0-9 . _ -, a letter or digit first")
    return text


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    inside: list[Any] = [metadata]
    for _ in range(_DEEPEST):
        inside = [one for value in inside for one in _values(value) if type(one) in (dict, list)]
    if inside:
        raise ValueError(TOO_DEEP)
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    if _NUL.search(text) or _SURROGATE.search(text):
        raise ValueError("NUL or a lone surrogate, which cannot be stored")
    return metadata


def _values(value: Any) -> Iterable[Any]:
    return value.values() if type(value) is dict else value


def is_serial_number(text: str) -> bool:
    """Whether a device may have it."""
    try:
        return len(_named(text)) <= SERIAL_NUMBER_LENGTH
    except ValueError:
        return False


Slug = Annotated[str, AfterValidator(_slug)]
"""A tenant's name in topics."""
SerialNumber = Annotated[str, StringConstraints(max_length=SERIAL_NUMBER_LENGTH), AfterValidator(_named)]
Name = Annotated[str, StringConstraints(max_length=255), AfterValidator(_named)]
Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_clean)]


class New(BaseModel):
    """Something to enter."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewTenant(New):
    """A tenant to enter."""

    slug: Slug
    name: Text = ""


class NewField(New):
    """A field of a device type to enter. The bounds are inclusive, in ``unit``."""

    name: Name
    data_type: DataType
    unit: Name | None = None
    minimum: float | None = Field(None, allow_inf_nan=False)
    maximum: float | None = Field(None, allow_inf_nan=False)
    required: bool = False

    @pydantic.model_validator(mode="after")
    def _bounds(self) -> Self:
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if bounds and self.data_type not in ("float", "int"):
            raise ValueError(f"only float and int have a minimum and a maximum, not {self.data_type}")
        if bounds != sorted(bounds):
            raise ValueError(f"the minimum {self.minimum:g} is above the maximum {self.maximum:g}")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of ``name:type[:unit[:minimum[:maximum]]][:required]``; a part may be left empty.

        Raises:
            UsageError: naming the text and its mistake.
        """
        name, *parts = text.split(":")
        required = len(parts) > 1 and parts[-1] == "required"
        known = [part.strip() or None for part in (parts[:-1] if required else parts)]
        if not 1 <= len(known) <= 4:
            raise errors.UsageError(
                f"--field {text!r}: write name:type[:unit[:minimum[:maximum]]][:required], "
                "for example temperature:float:celsius:-40:85:required"
            )
        data_type, unit, minimum, maximum = known + [None] * (4 - len(known))
        values = {"name": name, "data_type": data_type, "unit": unit, "minimum": minimum, "maximum": maximum}
        try:
            return checked(cls, **values, required=required)
        except errors.UsageError as error:
            raise errors.UsageError(f"--field {text!r}: {error}") from error


class NewDeviceType(New):
    """A device type to enter, with its fields."""

    name: Name
    description: Text = ""
    violations: Violations = "flag"
    unknown_fields: UnknownFields = "keep"
    fields: tuple[NewField, ...] = ()

    @pydantic.model_validator(mode="after")
    def _unique_fields(self) -> Self:
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"fields given twice: {', '.join(twice)}")
        return self


class NewDevice(New):
    """A device to enter. None: not said, which an update leaves as it is."""

    serial_number: SerialNumber
    type: Name
    name: Text | None = None
    location: Text | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_storable)] | None = None


class TenantRecord(BaseModel):
    """A tenant of the registry, with how much it has."""

    id: uuid.UUID
    slug: str
    name: str
    device_types: int
    devices: int
    created_at: dt.datetime


class TypeField(BaseModel):
    """A field of a device type."""

    name: str
    data_type: DataType
    unit: str | None
    minimum: float | None
    maximum: float | None
    required: bool


class DeviceTypeRecord(BaseModel):
    """A device type of the registry, with its fields."""

    id: uuid.UUID
    tenant: str
    name: str
    description: str
    violations: Violations
    unknown_fields: UnknownFields
    version: int
    devices: int
    fields: tuple[TypeField, ...]
    created_at: dt.datetime
    updated_at: dt.datetime


class DeviceRecord(BaseModel):
    """A device of the registry."""

    id: uuid.UUID
    tenant: str
    serial_number: str
    type: str
    name: str | None
    location: str | None
    status: DeviceState
    metadata: pydantic.Json[dict[str, Any]]
    last_seen_at: dt.datetime | None
    created_at: dt.datetime
    updated_at: dt.datetime


M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], **values: Any) -> M:
    """The model of these values.

    Raises:
        UsageError: naming each value that will not do, and why.
    """
    try:
        return model(**values)
    except pydantic.ValidationError as error:
        raise errors.UsageError(explain(error)) from error


_PLAINLY = {
    "missing": "{where} is missing",
    "extra_forbidden": "{where} is not known here",
    "string_unicode": "{where} is not UTF-8",
    "string_too_long": "{where} has more than {max_length} characters",
}


def explain(error: pydantic.ValidationError) -> str:
    """What is wrong, in one line."""
    return "; ".join(_plainly(mistake) for mistake in error.errors(include_url=False))


def _plainly(mistake: pydantic_core.ErrorDetails) -> str:
    where = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] in _PLAINLY:
        return _PLAINLY[mistake["type"]].format(where=where, **mistake.get("ctx", {}))
    text = mistake["msg"].removeprefix("Value error, ")
    return f"{where} = {mistake['input']!r}: {text}" if where else text
