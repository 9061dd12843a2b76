"""What operators may write, and what they are told when they may not."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.devices import models
from gateway.devices.models import NewField


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("door:bool", NewField(name="door", data_type="bool")),
        ("door:bool:required", NewField(name="door", data_type="bool", required=True)),
        ("speed:float:mm/s", NewField(name="speed", data_type="float", unit="mm/s")),
        ("speed:float:m/s:-1.5", NewField(name="speed", data_type="float", unit="m/s", minimum=-1.5)),
        ("level:int::0:100", NewField(name="level", data_type="int", minimum=0, maximum=100)),
        ("level:int:::100", NewField(name="level", data_type="int", maximum=100)),
        (
            "level:int:%:0:100:required",
            NewField(name="level", data_type="int", unit="%", minimum=0, maximum=100, required=True),
        ),
        ("a b:text", NewField(name="a b", data_type="text")),
    ],
)
def test_fields_are_written_in_one_word(text: str, expected: NewField) -> None:
    """Name, type, unit, bounds; empty parts are not said; ``required`` comes last."""
    assert expected == NewField.parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("door", "write name:type"),
        ("", "write name:type"),
        (":float", "name = ''"),
        ("door:", "data_type"),
        ("door:boolean", "'float', 'int', 'bool', 'text' or 'json'"),
        ("door:bool::0:1", "only float and int have a minimum"),
        ("level:int::5:1", "the minimum 5 is above the maximum 1"),
        ("level:int::a", "minimum = 'a'"),
        ("level:float::nan", "minimum"),
        ("level:int::0:1:2", "write name:type"),
        ("level:int::0:1:2:required", "write name:type"),
    ],
)
def test_mistakes_in_fields_are_explained(text: str, told: str) -> None:
    """The text is repeated, with what is wrong."""
    with pytest.raises(errors.UsageError) as refused:
        NewField.parse(text)
    assert f"--field {text!r}" in str(refused.value)
    assert told in str(refused.value)


def test_a_field_is_given_once() -> None:
    """Two fields of one name would hide each other."""
    fields = (NewField.parse("a:int"), NewField.parse("a:float"))
    with pytest.raises(errors.UsageError, match="given twice: a"):
        models.checked(models.NewDeviceType, name="k", fields=fields)


@pytest.mark.parametrize("slug", ["acme", "ACME-2", "a", "0", "a.b_c", "x" * 63])
def test_slugs_fit_into_topics(slug: str) -> None:
    """Letters, digits, dot, underscore and hyphen."""
    assert models.checked(models.NewTenant, slug=slug).slug == slug


@pytest.mark.parametrize("slug", ["", "a/b", "+", "#", "$SYS", "a b", "-a", "é", "x" * 64, "a\n"])
def test_other_slugs_are_refused(slug: str) -> None:
    """Nothing that a topic level cannot be, or a shell would trip over."""
    with pytest.raises(errors.UsageError, match="slug = "):
        models.checked(models.NewTenant, slug=slug)


@pytest.mark.parametrize(
    ("serial", "expected"),
    [
        ("VIB-SN-001", True),
        ("00:1A:7D", True),
        ("é" * 255, True),
        ("a/b", True),
        ("", False),
        (" a", False),
        ("a\n", False),
        ("a\x00b", False),
        ("\ud800", False),
        ("x" * 256, False),
    ],
)
def test_serial_numbers(serial: str, expected: bool) -> None:
    """Whatever devices call themselves, as long as it is text that a database takes and an index holds."""
    assert expected is models.is_serial_number(serial)
    if expected:
        models.checked(models.NewDevice, serial_number=serial, type="k")
    else:
        with pytest.raises(errors.UsageError):
            models.checked(models.NewDevice, serial_number=serial, type="k")
