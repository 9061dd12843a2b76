"""Small spools for tests: records, options, and reading a spool to its end."""

from __future__ import annotations

from pathlib import Path

from gateway.messages import digest
from gateway.settings import SpoolSettings as Options
from gateway.spool.disk import Disk
from gateway.spool.records import Record
from gateway.spool.spool import Position, Spool

SMALL = Options.model_construct(max_bytes=64 * 2**10, segment_bytes=4 * 2**10)
"""Smaller than an operator may make it: 16 segments of 4 KiB."""


SESSION = bytes(range(16))


def record(number: int, payload: bytes = b'{"temperature": 21.5}', packet_id: int | None = None) -> Record:
    """A record that can be told from others by its number."""
    return Record(
        stream="telemetry",
        topic=f"tenants/acme/devices/{number}/telemetry",
        payload=payload,
        received_us=1_763_640_000_000_000 + number,
        packet_id=number % 65_535 + 1 if packet_id is None else packet_id,
        retain=False,
        duplicate=False,
        resumed=False,
        turn=number,
        identity=number.to_bytes(16),
        user_properties=(("unit", "°C"),),
        session=SESSION,
    )


def opened(folder: Path, options: Options = SMALL, disk: Disk | None = None) -> Spool:
    """A spool in this folder, open."""
    spool = Spool(folder, options, digest, disk=disk)
    spool.open()
    return spool


def rest(spool: Spool, max_bytes: int = 2**20) -> tuple[list[Record], list[Position]]:
    """Everything not handed out yet."""
    records: list[Record] = []
    positions: list[Position] = []
    while portion := spool.next_chunk(max_bytes):
        records += portion.records
        positions += portion.positions
    return records, positions


def numbers(records: list[Record]) -> list[int]:
    """What they are told by."""
    return [one.turn for one in records]


def segments(folder: Path) -> list[Path]:
    """The segment files, oldest first."""
    return sorted(folder.glob("*.segment"))


def names(folder: Path) -> list[str]:
    """All files there are."""
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    """Permission bits."""
    return path.stat().st_mode & 0o777
