"""Many devices at once, from CSV or JSON lines: all of them, or none and every mistake by its line.

CSV has a header that names its columns: ``serial_number,type`` and of ``name,location,metadata`` whatever is
wanted; ``metadata`` is a JSON object. JSON lines have the same keys. What is empty or missing was not said: an
update leaves it as it is.
"""

from __future__ import annotations

import csv
import itertools
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic

from gateway import errors
from gateway.devices import models, provisioning

COLUMNS = tuple(models.NewDevice.model_fields)
MANDATORY = ("serial_number", "type")
SHOWN = 100
"""How many mistakes are named; the others are counted."""

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
        mistakes: the first ``SHOWN`` of them, by line.
        count: how many there are.
    """

    def __init__(self, mistakes: list[Mistake], count: int) -> None:
        lines = [f"line {mistake.line}: {mistake.text}" for mistake in mistakes]
        more = [f"… and {count - len(mistakes)} more"] if count > len(mistakes) else []
        super().__init__("\n  ".join([f"nothing was imported, for {count} mistake(s)", *lines, *more]))
        self.mistakes, self.count = mistakes, count


@dataclass
class _Mistakes:
    found: list[Mistake] = field(default_factory=list)
    count: int = 0

    def note(self, line: int, text: str) -> None:
        self.count += 1
        if len(self.found) < SHOWN:
            self.found.append(Mistake(line, text))

    def refuse_if_any(self) -> None:
        if self.count:
            raise ImportRefusedError(sorted(self.found, key=lambda mistake: mistake.line), self.count)


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
            row["line"], f"device {row['serial_number']!r} exists already; --update would change it"
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
            mistakes.note(line, models.mistakes(error))
            continue
        first = seen.setdefault(device.serial_number, line)
        if first != line:
            mistakes.note(line, f"device {device.serial_number!r} is on line {first} already")
        elif device.type not in kinds:
            mistakes.note(line, f"tenant {tenant!r} has no device type {device.type!r}")
        else:
            metadata = None if device.metadata is None else json.dumps(device.metadata, ensure_ascii=False)
            yield line, device.serial_number, kinds[device.type], device.name, device.location, metadata


def _records(lines: Iterable[str], mistakes: _Mistakes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and what was said on it, of either format."""
    lines = iter(lines)
    first = next(lines, "")
    if not first.strip():
        raise errors.UsageError("nothing to import: the first line is empty")
    read = _json_records if first.lstrip().startswith("{") else _csv_records
    yield from read(itertools.chain([first], lines), mistakes)


def _json_records(lines: Iterable[str], mistakes: _Mistakes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, _said(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeEncodeError) as error:
                mistakes.note(number, f"not a JSON object: {error}")


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


def _header(cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    missing = [column for column in MANDATORY if column not in header]
    unknown = [column for column in header if column not in COLUMNS]
    if missing or unknown or len(set(header)) < len(header):
        raise errors.UsageError(
            f"the first line must name the columns, for example {','.join(COLUMNS[:4])}; "
            f"it says {','.join(header)!r} (columns known: {', '.join(COLUMNS)})"
        )
    return header


def _said(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value not in ("", None)}


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
