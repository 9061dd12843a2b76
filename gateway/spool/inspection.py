"""The spool looked at from outside, read-only, also while a gateway uses it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.errors import UsageError
from gateway.spool import layout, segments
from gateway.spool.disk import Disk
from gateway.spool.layout import Listing
from gateway.spool.records import Record
from gateway.spool.segments import Segment


class SpoolStatus(msgspec.Struct, frozen=True):
    """What lies in the spool.

    Attributes:
        records: about how many, those among them that are settled while others of their segment are not.
        oldest_us, newest_us: receive times; None: there are no records.
        quarantined, unknown: names of files with damaged bytes, and of files that are not the spool's.
    """

    folder: Path
    segments: int
    records: int
    size_bytes: int
    max_bytes: int
    oldest_us: int | None
    newest_us: int | None
    quarantined: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def room_bytes(self) -> int:
        """Bytes that may still be spooled."""
        return max(0, self.max_bytes - self.size_bytes)


class Damage(msgspec.Struct, frozen=True):
    """Bytes that are not what was written."""

    file: str
    offset: int
    length: int


class Verification(msgspec.Struct, frozen=True):
    """What reading everything has shown.

    Attributes:
        damage: places in the segments, but for the unfinished end.
        unfinished_bytes: behind the last whole record of the newest segment: being written, or torn in a crash.
    """

    folder: Path
    segments: int
    records: int
    size_bytes: int
    damage: tuple[Damage, ...]
    unfinished_bytes: int


def folders(folder: Path) -> list[Path]:
    """The spool's folder, and those that workers (`gateway run --workers`) have or had in it."""
    return [folder, *sorted(folder.glob("worker-[0-9]*"))]


def status(folder: Path, max_bytes: int) -> SpoolStatus:
    """Look what is there; reads the newest segment whole.

    Raises:
        UsageError: the folder cannot be read.
    """
    with _looking_at(folder) as (disk, listing):
        found = list(_segments(disk, listing))
        newest = _newest_us(found[-1]) if found else None
        return SpoolStatus(
            folder=folder,
            segments=len(found),
            records=sum(segment.unsettled for segment in found),
            size_bytes=sum(segment.end for segment in found),
            max_bytes=max_bytes,
            oldest_us=found[0].oldest_us if found else None,
            newest_us=newest,
            quarantined=tuple(map(layout.quarantine_name, listing.quarantined)),
            unknown=tuple(listing.unknown),
        )


def verify(folder: Path) -> Verification:
    """Read everything, check every checksum.

    Raises:
        UsageError: the folder cannot be read.
    """
    count, size, records, damage, unfinished = 0, 0, 0, list[Damage](), 0
    with _looking_at(folder) as (disk, listing):
        for segment in _segments(disk, listing):
            with contextlib.suppress(FileNotFoundError):
                records += sum(1 for _ in segment.walk())
            if segment.number == listing.segments[-1]:
                tail, unfinished = segment.torn_tail()
                segment.reader.damage.pop(tail, None)
            name, places = layout.name_of(segment.number), sorted(segment.reader.damage.items())
            damage += [Damage(name, offset, length) for offset, length in places]
            count, size = count + 1, size + segment.end
    return Verification(folder, count, records, size, tuple(damage), unfinished)


def read(folder: Path) -> Iterator[Record]:
    """All records that can be read, oldest first.

    Raises:
        UsageError: the folder cannot be read.
    """
    with _looking_at(folder) as (disk, listing):
        for segment in _segments(disk, listing):
            with contextlib.suppress(FileNotFoundError):
                yield from segment.walk()


@contextlib.contextmanager
def _looking_at(folder: Path) -> Iterator[tuple[Disk, Listing]]:
    disk = Disk(folder)
    try:
        disk.look()
        yield disk, layout.listing(disk)
    except OSError as error:
        raise UsageError(
            f"spool.folder {folder}: {error.strerror}: is it the gateway's, and may you read it?"
        ) from error
    finally:
        disk.close()


def _segments(disk: Disk, listing: Listing) -> Iterator[Segment]:
    """The segments that are still there; a running gateway deletes what it has drained."""
    return filter(None, (segments.look(disk, number) for number in listing.segments))


def _newest_us(segment: Segment) -> int | None:
    """Receive time of the last record, which counts them on the way."""
    last, count, position = None, 0, segment.reader.position
    with contextlib.suppress(FileNotFoundError):
        for last in segment.walk():  # noqa: B007 - the last one is wanted
            count += 1
    segment.count, segment.reader.position = count, position
    return None if last is None else last.received_us
