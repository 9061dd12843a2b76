"""What commands read: devices by the file, fields of types, ages and times."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import uuid
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.dead_letter import _moment
from gateway.devices import imports, models
from gateway.devices.models import NewField
from gateway.errors import UsageError
from tests.support.fuzzing import attempt, fuzzed, spoiled

KINDS = {"pump": uuid.UUID(int=1), "vibration_sensor": uuid.UUID(int=2)}
DEEP = [b'{"a":' * depth + b"1" + b"}" * depth for depth in (30, 200, 1000, 5000)]
SAMPLES = [
    b"serial_number,type\nS-1,pump\nS-2,vibration_sensor\n",
    b'serial_number,type,name,location,metadata\nS-1,pump,"Pump, 1",Hall A,"{""floor"": 2}"\nS-2,pump,,,\n',
    b'{"serial_number":"S-1","type":"pump","metadata":{"floor":2,"tags":["a"]}}\n{"serial_number":"S-2","type":"pump"}\n',
    "\ufeffserial_number,type,name\r\nS-1,pump,Größe\r\n".encode(),
    "serial_number,type\nS-1,pump\n".encode("utf-16"),
    b'[{"serial_number":"S-1","type":"pump"}]',
    b"serial_number;type\nS-1;pump\n",
    *(b'{"serial_number":"S-1","type":"pump","metadata":%s}\n' % metadata for metadata in DEEP),
    *(b'serial_number,type,metadata\nS-1,pump,"%s"\n' % metadata.replace(b'"', b'""') for metadata in DEEP),
]
TOKENS = [
    *(
        b",",
        b'"',
        b'""',
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"{",
        b"}",
        b"[",
        b":",
        b'{"a":',
        b"[[",
        b"\\u0000",
    ),
    *(
        b"\\ud800",
        b"1e999",
        b"9" * 400,
        b"NaN",
        b'"metadata":',
        b'"serial_number":',
        b"S-1,pump\n",
        b"S-2,pumb\n",
        b"\x1b[31m",
    ),
    *(
        b',"{""a"":',
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\t",
        b" ",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"a" * 300,
        b"null",
        b"1,2\n",
    ),
]


def staged(content: bytes) -> tuple[list[imports.Row], int]:
    """The rows that an import would stage, and how many mistakes it has noted.

    Raises:
        UsageError: nothing of it can be read.
    """
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="surrogateescape", newline="")
    mistakes = imports._Mistakes()
    rows = list(imports._rows(imports._records(lines, mistakes), "acme", KINDS, mistakes))
    with contextlib.suppress(imports.ImportRefusedError):
        mistakes.refuse_if_any()
    return rows, mistakes.count


@fuzzed
@given(spoiled(SAMPLES, TOKENS))
def test_devices(content: bytes) -> None:
    """Rows that the database takes, and mistakes that are counted; or a text that says what the file is."""
    found = attempt("imports of devices", lambda: staged(content), UsageError)
    if isinstance(found, Exception):
        return
    for _, serial, kind, *texts in found[0]:
        assert models.is_serial_number(serial)
        assert kind in KINDS.values()
        for text in texts:
            assert text is None or "\0" not in text.encode().decode()
        assert isinstance(json.loads(texts[-1] or "{}"), dict)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda name: name == name.strip()
)
DEVICES = st.lists(
    st.fixed_dictionaries(
        {"serial_number": NAMES, "type": st.sampled_from(sorted(KINDS))},
        optional={
            "name": NAMES,
            "location": NAMES,
            "metadata": st.dictionaries(NAMES, st.integers(-(2**53), 2**53) | NAMES, min_size=1, max_size=3),
        },
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda device: str(device["serial_number"]),
)


@fuzzed
@given(DEVICES)
def test_devices_written_and_read(devices: list[dict[str, Any]]) -> None:
    """What a spreadsheet or a program writes is what is entered, from either format."""
    expected = [
        (one["serial_number"], KINDS[one["type"]], one.get("name"), one.get("location"), one.get("metadata"))
        for one in devices
    ]
    for content in (as_lines(devices), as_csv(devices)):
        found = attempt("imports of devices", functools.partial(staged, content))
        assert isinstance(found, tuple)
        rows = [(*row[1:5], None if row[5] is None else json.loads(row[5])) for row in found[0]]
        assert (rows, found[1]) == (expected, 0)


def as_lines(devices: list[dict[str, Any]]) -> bytes:
    """JSON lines."""
    return "\n".join(json.dumps(device, ensure_ascii=False) for device in devices).encode()


def as_csv(devices: list[dict[str, Any]]) -> bytes:
    """CSV with a byte order mark, as spreadsheets write it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, imports.COLUMNS)
    writer.writeheader()
    for device in devices:
        more = {"metadata": json.dumps(device["metadata"])} if "metadata" in device else {}
        writer.writerow(device | more)
    return text.getvalue().encode("utf-8-sig")


FIELDS = [
    "temperature:float",
    "temperature:float:celsius:-40:85:required",
    "on:bool",
    "n:int::0:10",
    "a:json::::required",
]


@fuzzed
@given(
    spoiled(
        FIELDS,
        [
            ":",
            "::",
            "required",
            "float",
            "nan",
            "inf",
            "1e308",
            "1e999",
            "-",
            "\0",
            "\udcff",
            "9" * 5000,
            "\x1b",
            " ",
        ],
    )
)
def test_fields(text: str) -> None:
    """``--field``: a field, or what is wrong with it."""
    attempt("imports of fields", lambda: NewField.parse(text), UsageError)


TIMES = [
    "2h",
    "30min",
    "7d",
    "2026-11-20T12:00Z",
    "2026-11-20",
    "2026-11-20T12:00:00.123456+02:00",
    "20261120T120000",
]


@fuzzed
@given(
    spoiled(
        TIMES,
        [
            "-",
            ":",
            "T",
            "Z",
            "+",
            "d",
            "9",
            "0",
            "9" * 400,
            "0001-01-01",
            "9999-12-31T23:59:59-23:59",
            "W",
            " ",
            "é",
            "\0",
        ],
    )
)
def test_times(text: str) -> None:
    """``--since``: a moment, or how to write one."""
    attempt("imports of times", lambda: _moment("--since", text), UsageError)
