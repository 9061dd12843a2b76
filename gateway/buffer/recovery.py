"""What a process before this one left in the spool. Damage costs what is damaged, and never the start."""

from __future__ import annotations

from collections import deque

import msgspec

from gateway.buffer import layout, records
from gateway.buffer.appender import cut
from gateway.buffer.disk import Disk
from gateway.buffer.layout import HEADER_BYTES
from gateway.buffer.recent import WINDOW, Recent
from gateway.buffer.segments import Segment

_BLOCK_BYTES = 2**20


class Recovery(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        records: about how many, those set aside not among them.
        size_bytes: in segments.
        torn_bytes: cut off behind the last whole record, and set aside: an append that nobody was told of.
        corrupt: damaged places found so far; what is not read yet may hold more.
        unknown: files that are not the spool's, or of a newer version; left alone.
    """

    segments: int
    records: int
    size_bytes: int
    torn_bytes: int
    corrupt: int
    unknown: tuple[str, ...]


def recover(disk: Disk, recent: Recent) -> tuple[dict[int, Segment], Recovery]:
    """The segments, oldest first; fills ``recent`` from the newest."""
    found = layout.listing(disk)
    unknown, torn = list(found.unknown), 0
    segments: dict[int, Segment] = {}
    for number in found.segments:
        segment = _look(disk, number)
        if segment is None:
            unknown.append(layout.name_of(number))
        else:
            segments[number] = segment
    if segments:
        torn = _remember(disk, segments, recent)
    left = [segment for segment in segments.values() if not segment.finished]
    return segments, Recovery(
        segments=len(left),
        records=sum(segment.unsettled for segment in left),
        size_bytes=sum(segment.end for segment in left),
        torn_bytes=torn,
        corrupt=sum(len(segment.reader.damage) for segment in left),
        unknown=tuple(unknown),
    )


def _look(disk: Disk, number: int) -> Segment | None:
    """A segment as it lies there; None when it cannot be read, or is of a newer version."""
    segment = Segment(disk, number, HEADER_BYTES, layout.NO_EPOCH)
    try:
        head = layout.read_header(segment.reader.head())
        if head.version > layout.VERSION:
            return None
        segment.epoch, segment.end = head.epoch, segment.reader.size
        segment.sample()
    except OSError:
        return None
    finally:
        segment.reader.close()
    return segment


def _remember(disk: Disk, segments: dict[int, Segment], recent: Recent) -> int:
    """Fill ``recent`` from the newest segments; bytes of a torn tail, which is cut off."""
    torn, wanted = 0, WINDOW
    latest: list[tuple[bytes, deque[bytes]]] = []
    for segment in reversed(segments.values()):
        bodies = _scan(segment, wanted)
        if not latest:
            torn = _cut_tail(disk, segment)
        latest.append((segment.epoch, bodies))
        wanted -= len(bodies)
        if wanted <= 0:
            break
    for epoch, bodies in reversed(latest):
        recent.begin(epoch)
        for record in filter(None, map(records.decode, bodies)):
            recent.add(record)
    return torn


def _scan(segment: Segment, wanted: int) -> deque[bytes]:
    """Count the records of a segment; the bodies of its last ones."""
    reader, bodies, count = segment.reader, deque[bytes](maxlen=wanted), 0
    try:
        while found := reader.read(segment.end, _BLOCK_BYTES):
            bodies.extend(body for _, body in found)
            count += len(found)
        segment.count = count
    except OSError:
        bodies.clear()
    finally:
        reader.position = HEADER_BYTES
        reader.close()
    return bodies


def _cut_tail(disk: Disk, segment: Segment) -> int:
    """Set aside and cut off what is behind the last whole record; how many bytes that was.

    When the disk will not have it, it stays, and is damage like any other.
    """
    offset, length = next(reversed(segment.reader.damage.items()), (0, 0))
    if not length or offset + length < segment.end:
        return 0
    try:
        segment.set_aside(disk)
        cut(disk, segment.number, offset)
    except OSError:
        return 0
    finally:
        segment.reader.close()
    del segment.reader.damage[offset]
    segment.end = offset
    return length
