"""What a process before this one left in the spool. Damage costs what is damaged, and never the start."""

from __future__ import annotations

from collections import deque

import msgspec

from gateway.messages import PACKET_IDS
from gateway.spool import layout, records, segments
from gateway.spool.appender import cut
from gateway.spool.disk import Disk
from gateway.spool.layout import HEADER_BYTES
from gateway.spool.recent import Recent
from gateway.spool.segments import Segment

_BLOCK_BYTES = 2**20


class Recovery(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        records: about how many, those in quarantine not among them.
        size_bytes: in segments.
        torn_bytes: cut off behind the last whole record, and quarantined: of an append that was never reported, or
            of the last record, damaged since.
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
    usable: dict[int, Segment] = {}
    for number in found.segments:
        segment = segments.look(disk, number)
        if segment is None:
            unknown.append(layout.name_of(number))
        else:
            usable[number] = segment
    if usable:
        torn = _remember(disk, usable, recent)
    left = [segment for segment in usable.values() if not segment.finished]
    return usable, Recovery(
        segments=len(left),
        records=sum(segment.unsettled for segment in left),
        size_bytes=sum(segment.end for segment in left),
        torn_bytes=torn,
        corrupt=sum(len(segment.reader.damage) for segment in left),
        unknown=tuple(unknown),
    )


def _remember(disk: Disk, usable: dict[int, Segment], recent: Recent) -> int:
    """Fill ``recent`` from the newest segments; bytes of a torn tail, which is cut off."""
    torn, wanted = 0, PACKET_IDS
    latest: list[deque[bytes]] = []
    for segment in reversed(usable.values()):
        bodies = _scan(segment, wanted)
        if not latest:
            torn = _cut_tail(disk, segment)
        latest.append(bodies)
        wanted -= len(bodies)
        if wanted <= 0:
            break
    for bodies in reversed(latest):
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
    """Quarantine and cut off what is behind the last whole record; how many bytes that was.

    When the disk will not have it, it stays, and is damage like any other.
    """
    offset, length = segment.torn_tail()
    if not length:
        return 0
    try:
        segment.quarantine(disk)
        cut(disk, segment.number, offset)
    except OSError:
        return 0
    finally:
        segment.reader.close()
    del segment.reader.damage[offset]
    segment.end = offset
    return length
