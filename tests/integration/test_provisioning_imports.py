"""Importing devices: all or none, and every mistake by its line."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable

import asyncpg
import pytest

from gateway import errors
from gateway.devices import imports, models, provisioning
from gateway.devices.imports import Imported, Mistake
from tests.support.databases import Databases

DEVICES = 5_000


@pytest.fixture
async def registry(postgres_databases: Databases) -> AsyncIterator[asyncpg.Connection]:
    """A registry with tenant ``acme`` and types ``pump`` and ``fan``."""
    connection = await asyncpg.connect(postgres_databases.metadata_dsn)
    await provisioning.add_tenant(connection, models.NewTenant(slug="acme"))
    for name in ("pump", "fan"):
        await provisioning.add_device_type(connection, "acme", models.NewDeviceType(name=name))
    yield connection
    await connection.close()


async def load(registry: asyncpg.Connection, text: str | Iterable[str], *, update: bool = False) -> Imported:
    """Import this text."""
    lines = text.splitlines(keepends=True) if isinstance(text, str) else text
    return await imports.import_devices(registry, "acme", lines, update=update)


async def mistakes(registry: asyncpg.Connection, text: str) -> list[Mistake]:
    """What is wrong with this text; nothing of it may have been imported."""
    with pytest.raises(imports.ImportRefusedError) as refused:
        await load(registry, text)
    assert await provisioning.list_devices(registry) == []
    return refused.value.mistakes


async def serials(registry: asyncpg.Connection) -> list[str]:
    """Serial numbers of all devices."""
    return [device.serial_number for device in await provisioning.list_devices(registry)]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_thousands_are_imported_at_once(registry: asyncpg.Connection, form: str) -> None:
    """5 000 devices in one go, in one transaction; the speed is printed."""
    rows = [
        {"serial_number": f"S{n:05}", "type": "pump", "name": f"Pump {n}", "location": "Hall, A"}
        for n in range(DEVICES)
    ]
    if form == "csv":
        lines = ["serial_number,type,name,location\n"]
        lines += [f'{row["serial_number"]},pump,{row["name"]},"Hall, A"\n' for row in rows]
    else:
        lines = [json.dumps(row) + "\n" for row in rows]
    seen: list[int] = []
    start = time.perf_counter()
    done = await imports.import_devices(registry, "acme", lines, progress=seen.append)
    seconds = time.perf_counter() - start
    print(f"{form}: {DEVICES / seconds:,.0f} devices/s")  # noqa: T201  (a figure, not a promise)
    assert done == Imported(DEVICES, DEVICES, 0)
    assert seen == sorted(seen)
    assert seen[-1] == DEVICES
    last = await provisioning.show_device(registry, "acme", f"S{DEVICES - 1:05}")
    assert (last.type, last.name, last.location) == ("pump", f"Pump {DEVICES - 1}", "Hall, A")


async def test_csv_says_more_or_less(registry: asyncpg.Connection) -> None:
    """Columns in any order; empty cells are not said; quoted cells hold commas, quotes and JSON; blank lines pass."""
    text = 'type,metadata,serial_number\r\npump,"{""a"": ""x,\\u00e9""}",S1\r\n\r\nfan,,"S,2"\r\n'
    assert (await load(registry, text)).added == 2
    first, second = await provisioning.list_devices(registry)
    assert (second.serial_number, second.type, second.metadata) == ("S1", "pump", {"a": "x,é"})
    assert (first.serial_number, first.name, first.metadata) == ("S,2", None, {})


async def test_every_mistake_is_named_by_its_line(registry: asyncpg.Connection) -> None:
    """One bad line keeps all others out, and all bad lines are told at once."""
    text = (
        "serial_number,type,name,metadata\n"
        "S1,pump,ok,\n"
        "S1,pump,again,\n"
        "S2,valve,,\n"
        ",pump,,\n"
        "S3,pump\n"
        "S4,pump,caf\udce9,\n"
        'S5,pump,,{"a": 1\n'
        "S6,pump,a\x07b,\n"
        "S7,pump,,[1]\n"
        f"{'x' * 256},pump,,\n"
    )
    found = {mistake.line: mistake.text for mistake in await mistakes(registry, text)}
    assert sorted(found) == [3, 4, 5, 6, 7, 8, 9, 10, 11]  # no two are of one kind
    assert found[3] == "device 'S1' is on line 2 already"
    assert found[4] == "tenant 'acme' has no device type 'valve': `gateway device-type add` makes one"
    assert found[5] == "serial_number is missing"
    assert found[6] == "2 column(s), where the header has 4"
    assert found[7] == "name is not UTF-8"
    assert "metadata is not a JSON object" in found[8]
    assert "control characters" in found[9]
    assert "metadata is not a JSON object" in found[10]
    assert found[11] == "serial_number has more than 255 characters"


async def test_json_lines_have_their_own_mistakes(registry: asyncpg.Connection) -> None:
    """Broken JSON, what is no object, unknown keys, wrong types, and text that no database takes."""
    text = (
        '{"serial_number": "S1", "type": "pump"}\n'
        "\n"
        '{"serial_number": "S2", "type": \n'
        "[1]\n"
        '{"serial_number": "S3", "type": "pump", "colour": "red"}\n'
        '{"serial_number": 4, "type": "pump"}\n'
        '{"serial_number": "S5", "type": "pump", "metadata": {"a": {"b": "\\u0000"}}}\n'
        '{"serial_number": "S6", "type": "pump", "name": "\\ud800"}\n'
        '{"serial_number": "S7", "type": "pump", "metadata": {"a": NaN}}\n'
        '{"serial_number": "S8", "type": "pump", "metadata": 5}\n'
    )
    found = await mistakes(registry, text)
    assert [mistake.line for mistake in found] == [3, 4, 5, 6, 7, 9, 10]  # 7 and 8 are of one kind
    assert found[2].text == "colour is not known here"


async def test_a_backslash_is_no_nul(registry: asyncpg.Connection) -> None:
    """Metadata that only looks like an escaped NUL is stored as it is."""
    await load(registry, json.dumps({"serial_number": "S1", "type": "pump", "metadata": {"a": "\\u0000"}}))
    assert (await provisioning.show_device(registry, "acme", "S1")).metadata == {"a": "\\u0000"}


async def test_many_mistakes_are_counted(registry: asyncpg.Connection) -> None:
    """A hundred kinds are shown, the first ones; what else there is is counted."""
    text = "serial_number,type\n" + "".join(f"S{n},valve{n:x}\n" for n in range(500))
    with pytest.raises(imports.ImportRefusedError, match="and 400 more") as refused:
        await load(registry, text)
    assert (len(refused.value.mistakes), refused.value.count) == (imports.SHOWN, 500)
    assert refused.value.mistakes[-1].line == imports.SHOWN + 1


async def test_repeated_mistakes_are_one_line_with_the_cure(registry: asyncpg.Connection) -> None:
    """One wrong name in five thousand lines is not five thousand lines of text; what is rare is not drowned."""
    lines = [f"S{n},Pmup,x\n" for n in range(4_000)] + ["S9999,pump\n", "S1,Pmup,x\n", ",fan,x\n", ",fan,x\n"]
    with pytest.raises(imports.ImportRefusedError) as refused:
        await load(registry, "serial_number,type,name\n" + "".join(lines))
    assert str(refused.value).splitlines() == [
        "nothing was imported, for 4004 mistake(s)",
        "  4000 times, lines 2, 3, 4, 5, 6, …: tenant 'acme' has no device type 'Pmup': perhaps 'pump' is meant",
        "  line 4002: 2 column(s), where the header has 3",
        "  line 4003: device 'S1' is on line 3 already",
        "  2 times, lines 4004, 4005: serial_number is missing",
    ]


async def test_mistakes_that_differ_in_names_are_of_one_kind(registry: asyncpg.Connection) -> None:
    """A second import of a file says once that its devices are there, and what would change them."""
    text = "serial_number,type\n" + "".join(f"S{n},pump\n" for n in range(300))
    await load(registry, text)
    with pytest.raises(imports.ImportRefusedError) as refused:
        await load(registry, text)
    assert str(refused.value).splitlines()[1:] == [
        "  300 times, lines 2, 3, 4, 5, 6, …: device 'S0' exists already; --update would change it (this is line 2)"
    ]
    with pytest.raises(imports.ImportRefusedError) as refused:
        await load(registry, "\n".join(['{"serial_number": "S1", "type": "pump"}'] + ["{"] * 9 + ["{'a'"]))
    assert len(str(refused.value).splitlines()) == 4


async def test_existing_devices_need_update(registry: asyncpg.Connection) -> None:
    """Without it they are mistakes, named by line; the new ones beside them are not entered either."""
    await load(registry, "serial_number,type\nS1,pump\nS2,pump\n")
    with pytest.raises(imports.ImportRefusedError) as refused:
        await load(registry, "serial_number,type\nS0,pump\nS1,fan\nS2,pump\n")
    assert [mistake.line for mistake in refused.value.mistakes] == [3]
    assert "--update" in refused.value.mistakes[0].text
    assert await serials(registry) == ["S1", "S2"]


async def test_update_changes_what_is_said(registry: asyncpg.Connection) -> None:
    """New devices are added; existing ones get what is given and keep what is not; the same again changes nothing."""
    await load(registry, "serial_number,type,name,location\nS1,pump,One,Here\nS2,pump,Two,Here\n")
    text = "serial_number,type,name\nS1,fan,\nS2,pump,Second\nS3,pump,Three\n"
    assert await load(registry, text, update=True) == Imported(3, 1, 2)
    one, two, _ = await provisioning.list_devices(registry)
    assert (one.type, one.name, one.location) == ("fan", "One", "Here")
    assert (two.type, two.name, two.location) == ("pump", "Second", "Here")
    again = await load(registry, text, update=True)
    assert (again, again.unchanged) == (Imported(3, 0, 0), 3)
    assert one == (await provisioning.list_devices(registry))[0]


async def test_other_tenants_are_untouched(registry: asyncpg.Connection) -> None:
    """The same serial number of another tenant is another device."""
    await provisioning.add_tenant(registry, models.NewTenant(slug="other"))
    await provisioning.add_device_type(registry, "other", models.NewDeviceType(name="pump"))
    await imports.import_devices(registry, "other", ["serial_number,type,name\n", "S1,pump,theirs\n"])
    await load(registry, "serial_number,type,name\nS1,pump,ours\n")
    await load(registry, "serial_number,type,name\nS1,pump,ours again\n", update=True)
    assert (await provisioning.show_device(registry, "other", "S1")).name == "theirs"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "first line is empty"),
        ("\nserial_number,type\n", "first line is empty"),
        ("serial,type\nS1,pump\n", "must name the columns"),
        ("S1,pump\n", "must name the columns"),
        ("serial_number;type\nS1;pump\n", "must name the columns"),
        ("serial_number;type\nS1;pump\n", "separated by commas, not ';'"),
        ("serial_number\ttype\nS1\tpump\n", r"separated by commas, not '\\t'"),
        ("\udcff\udcfes\0e\0", "this is UTF-16 .*iconv -f UTF-16"),
        ("\udcfe\udcff\0s\0e", "this is UTF-16"),
        ("s\0e\0r\0i\0", "this is UTF-16"),
        ('[{"serial_number": "S1", "type": "pump"}]', r"this is a JSON array, .* jq -c '\.\[\]' FILE"),
        ('[\n{"serial_number": "S1", "type": "pump"}\n]', "this is a JSON array"),
        ('{\n"serial_number": "S1",\n"type": "pump"\n}', r"an object of several lines, .* jq -c \. FILE"),
        ("\x1f\udc8b\x08", "compressed by gzip: gzip -dc FILE"),
        ("PK\x03\x04", "a spreadsheet: save the sheet as CSV"),
        ("serial_number,type,type\nS1,pump,pump\n", "must name the columns"),
        ('"serial_number,type\nS1,pump\n', "the first line is not CSV"),
    ],
)
async def test_what_is_no_import_is_refused(registry: asyncpg.Connection, text: str, told: str) -> None:
    """A missing or wrong header is one clear error, not one for every line."""
    with pytest.raises(errors.UsageError, match=told):
        await load(registry, text)


async def test_a_header_alone_imports_nothing(registry: asyncpg.Connection) -> None:
    """An empty list of devices is no mistake."""
    assert await load(registry, "serial_number,type\n") == Imported(0, 0, 0)


async def test_an_unknown_tenant_is_named(registry: asyncpg.Connection) -> None:
    """Before anything is read."""
    with pytest.raises(errors.UsageError, match="no tenant 'acne'; there is acme"):
        await imports.import_devices(registry, "acne", ["serial_number,type\n"])


@pytest.mark.parametrize("depth", [33, 500, 20_000])
async def test_metadata_nested_without_end(registry: asyncpg.Connection, depth: int) -> None:
    """It is a mistake of its line, in either format; no traceback."""
    deep = '{"a":' * depth + "1" + "}" * depth
    in_csv = deep.replace('"', '""')
    for text, line in (
        (f'serial_number,type,metadata\nS-1,pump,"{in_csv}"\n', 2),
        (f'{{"serial_number":"S-1","type":"pump","metadata":{deep}}}\n', 1),
    ):
        (mistake,) = await mistakes(registry, text)
        assert mistake.line == line
        assert "nested too deep" in mistake.text
