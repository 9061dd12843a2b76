"""Many devices at once, from CSV or JSON lines: all of them, or none and every mistake by its line.

CSV has a header that names its columns: ``serial_number,type`` and of ``name,location,metadata`` whatever is
wanted; ``metadata`` is a JSON object. JSON lines have the same keys. What is empty or missing was not said: an
update leaves it as it is.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic

from gateway import errors
from gateway.devices import models, provisioning

COLUMNS = tuple(models.NewDevice.model_fields)
MANDATORY = ("serial_number", "type")
SHOWN = 100
"""How many kinds of mistakes are named; others are counted."""
_LINES_SHOWN = 5
_NUMBER = re.compile(r"\d+")

_PROGRESS_EVERY = 500

Row = tuple[int, str, uuid.UUID, str | None, str | None, str | None]


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one line (counted from 1)."""

    line: int
    text: str


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    lines: int
    added: int
    updated: int

    @property
    def unchanged(self) -> int:
        """Devices that were there already, just so."""
        return self.lines - self.added - self.updated


class ImportRefusedError(errors.UsageError):
    """Nothing was imported.

    Attributes:
        mistakes: the first of each kind, by line, at most ``SHOWN``.
        count: how many there are.
    """

    def __init__(self, kinds: Iterable[_Kind], count: int) -> None:
        shown = sorted(kinds, key=lambda kind: kind.first.line)
        told = sum(kind.count for kind in shown)
        more = [f"… and {count - told} more"] if count > told else []
        said = [kind.said() for kind in shown]
        super().__init__("\n  ".join([f"nothing was imported, for {count} mistake(s)", *said, *more]))
        self.mistakes, self.count = [kind.first for kind in shown], count


@dataclass
class _Kind:
    """Mistakes that are alike, so that a thousand of them are one line and one cure."""

    first: Mistake
    lines: list[int]
    count: int = 0
    alike: bool = True

    def said(self) -> str:
        if self.count == 1:
            return f"line {self.first.line}: {self.first.text}"
        lines = ", ".join(map(str, self.lines)) + (", …" if self.count > len(self.lines) else "")
        place = "" if self.alike else f" (this is line {self.first.line})"
        return f"{self.count} times, lines {lines}: {self.first.text}{place}"


@dataclass
class _Mistakes:
    kinds: dict[str, _Kind] = field(default_factory=dict)
    count: int = 0

    def note(self, line: int, text: str, kind: str | None = None) -> None:
        """Note one; ``kind`` stands for texts that differ in names only."""
        self.count += 1
        key = kind or _NUMBER.sub("0", text)
        if key not in self.kinds:
            if len(self.kinds) == SHOWN:
                return
            self.kinds[key] = _Kind(Mistake(line, text), [])
        found = self.kinds[key]
        found.count += 1
        found.alike = found.alike and found.first.text == text
        if len(found.lines) < _LINES_SHOWN:
            found.lines.append(line)

    def refuse_if_any(self) -> None:
        if self.count:
            raise ImportRefusedError(self.kinds.values(), self.count)


async def import_devices(
    connection: provisioning.Connection,
    tenant: str,
    lines: Iterable[str],
    *,
    update: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Enter the devices of these lines, in one transaction.

    Args:
        connection: to the metadata database.
        tenant: slug of the tenant that has, or gets, the devices.
        lines: of CSV or JSON lines: the first character tells. Bytes that are not UTF-8 come as surrogates
            (``errors="surrogateescape"``), so that they are a mistake of their line only.
        update: change devices that exist; otherwise they are mistakes.
        progress: called now and then with the number of devices read.

    Raises:
        ImportRefusedError: there are mistakes; nothing was entered.
        UsageError: no such tenant, or nothing to import.
    """
    mistakes = _Mistakes()
    async with connection.transaction():
        owner = await provisioning.tenant_id(connection, tenant)
        kinds = await provisioning.device_type_ids(connection, tenant)
        await connection.execute(_STAGE)
        rows = _counted(_rows(_records(lines, mistakes), tenant, kinds, mistakes), progress)
        copied = await connection.copy_records_to_table("imported_devices", records=rows)
        await connection.execute("ANALYZE imported_devices")
        if not update:
            await _note_existing(connection, owner, mistakes)
        mistakes.refuse_if_any()
        updated = _count(await connection.execute(_UPDATE, owner)) if update else 0
        added = _count(await connection.execute(_INSERT, owner))
    return Imported(_count(copied), added, updated)


def _count(status: str) -> int:
    """Rows, of a command's status such as ``INSERT 0 17``."""
    return int(status.rpartition(" ")[2])


def _counted(rows: Iterable[Row], progress: Callable[[int], None]) -> Iterator[Row]:
    count = 0
    for count, row in enumerate(rows, 1):
        if count % _PROGRESS_EVERY == 0:
            progress(count)
        yield row
    progress(count)


async def _note_existing(connection: provisioning.Connection, owner: uuid.UUID, mistakes: _Mistakes) -> None:
    for row in await connection.fetch(_EXISTING, owner):
        mistakes.note(
            row["line"], f"device {row['serial_number']!r} exists already; --update would change it", "exists"
        )


def _rows(
    records: Iterable[tuple[int, Mapping[str, Any]]],
    tenant: str,
    kinds: Mapping[str, uuid.UUID],
    mistakes: _Mistakes,
) -> Iterator[Row]:
    """The rows to stage; what is no device is noted and left out."""
    seen: dict[str, int] = {}
    for line, record in records:
        try:
            device = models.NewDevice(**record)
        except pydantic.ValidationError as error:
            mistakes.note(line, models.explain(error))
            continue
        first = seen.setdefault(device.serial_number, line)
        if first != line:
            mistakes.note(line, f"device {device.serial_number!r} is on line {first} already", "twice")
        elif device.type not in kinds:
            mistakes.note(line, _no_type(tenant, device.type, kinds), f"type {device.type}")
        else:
            metadata = None if device.metadata is None else json.dumps(device.metadata, ensure_ascii=False)
            yield line, device.serial_number, kinds[device.type], device.name, device.location, metadata


def _no_type(tenant: str, name: str, kinds: Collection[str]) -> str:
    near = {kind.lower(): kind for kind in kinds}
    meant = difflib.get_close_matches(name.lower(), near, n=1)
    cure = f"perhaps {near[meant[0]]!r} is meant" if meant else "`gateway device-type add` makes one"
    return f"tenant {tenant!r} has no device type {name!r}: {cure}"


def _records(lines: Iterable[str], mistakes: _Mistakes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and what was said on it, of either format."""
    lines = iter(lines)
    first = next(lines, "")
    if (cure := _other_format(first)) is not None:
        raise errors.UsageError(f"nothing was imported: {cure}")
    if not first.strip():
        raise errors.UsageError("nothing to import: the first line is empty")
    read = _json_records if first.lstrip().startswith("{") else _csv_records
    yield from read(itertools.chain([first], lines), mistakes)


def _other_format(first: str) -> str | None:
    """What a file is that begins so, and how to make of it what can be read; None: it may be right."""
    for begins, cure in _OTHER_FORMATS:
        if first.startswith(begins):
            return cure
    if "\0" in first:
        return _UTF_16
    said = first.strip()
    if said.startswith("["):
        return "this is a JSON array, and a device is a line: jq -c '.[]' FILE | gateway device import -"
    if said == "{":
        return "this is an object of several lines, and a device is a line: jq -c . FILE | gateway device import -"
    return None


def _json_records(lines: Iterable[str], mistakes: _Mistakes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, _said(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeEncodeError) as error:
                mistakes.note(number, f"not a JSON object: {error}")
            except RecursionError:
                mistakes.note(number, f"not a device: {models.TOO_DEEP}")


def _csv_records(lines: Iterable[str], mistakes: _Mistakes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(lines, strict=True)
    try:
        header = _header(next(reader))
    except csv.Error as error:
        raise errors.UsageError(f"the first line is not CSV: {error}") from error
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            mistakes.note(reader.line_num, f"not CSV: {error}")
            continue
        if len(cells) == len(header):
            yield from _csv_record(reader.line_num, dict(zip(header, cells, strict=True)), mistakes)
        elif cells:
            mistakes.note(reader.line_num, f"{len(cells)} column(s), where the header has {len(header)}")


def _csv_record(
    line: int, cells: dict[str, Any], mistakes: _Mistakes
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        if cells.get("metadata"):
            cells["metadata"] = msgspec.json.decode(cells["metadata"], type=dict[str, Any])
        yield line, _said(cells)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        mistakes.note(line, f"metadata is not a JSON object: {error}")
    except RecursionError:
        mistakes.note(line, f"metadata: {models.TOO_DEEP}")


def _header(cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    missing = [column for column in MANDATORY if column not in header]
    unknown = [column for column in header if column not in COLUMNS]
    if missing or unknown or len(set(header)) < len(header):
        raise errors.UsageError(
            f"the first line must name the columns, for example {','.join(COLUMNS[:4])}; "
            f"it says {','.join(header)!r} (columns known: {', '.join(COLUMNS)}){_separated(header)}"
        )
    return header


def _separated(header: list[str]) -> str:
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    return f"; columns are separated by commas, not {other!r}" if other else ""


def _said(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value not in ("", None)}


_UTF_16 = (
    "this is UTF-16 (Windows and PowerShell write it), and UTF-8 is read: "
    "iconv -f UTF-16 -t UTF-8 FILE | gateway device import -"
)
_OTHER_FORMATS = (
    ("\udcff\udcfe", _UTF_16),
    ("\udcfe\udcff", _UTF_16),
    ("\x1f\udc8b", "this is compressed by gzip: gzip -dc FILE | gateway device import -"),
    ("PK\x03\x04", "this is a ZIP file, or a spreadsheet: save the sheet as CSV in UTF-8"),
)
"""By the first bytes; those that are not UTF-8 as surrogates."""

_STAGE = """
CREATE TEMPORARY TABLE imported_devices (
    line integer, serial_number text, device_type_id uuid, name text, location text, metadata jsonb
) ON COMMIT DROP
"""

_EXISTING = """
SELECT i.line, i.serial_number FROM imported_devices i JOIN devices d USING (serial_number)
WHERE d.tenant_id = $1 ORDER BY i.line
"""

# Rows that are so already stay untouched: their type's cache entries need no purge.
_UPDATE = """
UPDATE devices d SET
    device_type_id = i.device_type_id,
    name = coalesce(i.name, d.name),
    location = coalesce(i.location, d.location),
    metadata = coalesce(i.metadata, d.metadata),
    updated_at = now()
FROM imported_devices i
WHERE d.tenant_id = $1 AND d.serial_number = i.serial_number
  AND (d.device_type_id, d.name, d.location, d.metadata) IS DISTINCT FROM (i.device_type_id,
      coalesce(i.name, d.name), coalesce(i.location, d.location), coalesce(i.metadata, d.metadata))
"""

_INSERT = """
INSERT INTO devices (tenant_id, device_type_id, serial_number, name, location, metadata)
SELECT $1, device_type_id, serial_number, name, location, coalesce(metadata, '{}')
FROM imported_devices i
WHERE NOT EXISTS (SELECT FROM devices d WHERE d.tenant_id = $1 AND d.serial_number = i.serial_number)
ORDER BY line
"""
