"""What is known of a segment in use: how much of it was read, handed out and settled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gateway.spool import layout, records
from gateway.spool.disk import Disk
from gateway.spool.reader import Reader
from gateway.spool.records import Record

_SAMPLE_BYTES = 64 * 2**10
_WALK_BYTES = 2**20


class Segment:
    """One segment, written to its ``end`` and read up to its reader's position.

    Attributes:
        end: offset behind its last durable frame.
        epoch: id of the process that wrote it; zeros: unknown.
        count: records in it; None: not counted yet.
        oldest_us: receive time of the oldest record of those handed out last, or of its first; None: it has none.
        stuck: it should be gone, and the disk would not do it.
    """

    def __init__(self, disk: Disk, number: int, end: int, epoch: bytes) -> None:
        self.number, self.end, self.epoch = number, end, epoch
        self.reader = Reader(disk, number)
        self.count: int | None = 0
        self.oldest_us: int | None = None
        self.stuck = False
        self._handed_out = 0
        self._outstanding: set[int] = set()
        self._mean = 1.0

    @property
    def read_through(self) -> bool:
        """Whether everything in it was handed out, or skipped."""
        return self.reader.position >= self.end

    @property
    def finished(self) -> bool:
        """Whether everything in it is settled."""
        return self.read_through and not self._outstanding

    @property
    def unsettled(self) -> int:
        """Records in it that are not settled; an estimate when they were not counted."""
        return self._unread + len(self._outstanding)

    @property
    def _unread(self) -> int:
        if self.read_through:
            return 0
        if self.count is None:
            return max(1, round((self.end - self.reader.position) / self._mean))
        return max(1, self.count - self._handed_out)

    def grow(self, end: int, added: Sequence[Record]) -> None:
        """These records are durable, up to ``end``."""
        if self.read_through:
            self.oldest_us = added[0].received_us
        self.end = end
        if self.count is not None:
            self.count += len(added)

    def sample(self) -> None:
        """Look at its first records, to tell about how many there are. May raise OSError."""
        position = self.reader.position
        found = self.reader.read(self.end, _SAMPLE_BYTES)
        self.count = None if found else 0
        if found:
            self._mean = records.size(body for _, body in found) / len(found)
            first = records.decode(found[0][1])
            self.oldest_us = None if first is None else first.received_us
            self.reader.position = position

    def next_records(self, max_bytes: int) -> tuple[list[int], list[Record]]:
        """Offsets and records of the next frames, handed out; perhaps none. May raise OSError."""
        offsets, found = self._next(max_bytes)
        self._outstanding.update(offsets)
        self._handed_out += len(offsets)
        if found:
            self.oldest_us = found[0].received_us
        return offsets, found

    def walk(self) -> Iterator[Record]:
        """All records, without handing them out. May raise OSError."""
        while not self.read_through:
            yield from self._next(_WALK_BYTES)[1]
        self.reader.close()

    def _next(self, max_bytes: int) -> tuple[list[int], list[Record]]:
        offsets, found = [], []
        for offset, body in self.reader.read(self.end, max_bytes):
            record = records.decode(body)
            if record is None:
                self.reader.damage[offset] = records.HEAD_BYTES + len(body)
            else:
                offsets.append(offset)
                found.append(record)
        return offsets, found

    def torn_tail(self) -> tuple[int, int]:
        """Offset and length of damage that reaches to the end; length 0: there is none."""
        offset, length = max(self.reader.damage.items(), default=(self.end, 0))
        return (offset, length) if offset + length >= self.end else (self.end, 0)

    def settle(self, offsets: Iterable[int]) -> None:
        """The records at these offsets have come to their end."""
        self._outstanding.difference_update(offsets)

    def quarantine(self, disk: Disk) -> None:
        """Quarantine: keep its damaged bytes in a file of their own, at the same offsets. May raise OSError."""
        if not self.reader.damage:
            return
        name = layout.quarantine_name(self.number)
        try:
            kept = disk.create(name)
        except FileExistsError:
            kept = disk.open_file(name, write=True)
        try:
            for offset, length in self.reader.damage.items():
                self.reader.copy(offset, length, kept)
            kept.sync()
        finally:
            kept.close()
        disk.sync()


def look(disk: Disk, number: int) -> Segment | None:
    """A segment as it lies there; None when it cannot be read, or is of a newer version."""
    segment = Segment(disk, number, layout.HEADER_BYTES, layout.NO_EPOCH)
    try:
        head = layout.read_header(segment.reader.head())
        if head.version > layout.VERSION:
            return None
        segment.epoch, segment.end = head.epoch, segment.reader.size
        if head.damaged and segment.end:
            segment.reader.damage[0] = min(layout.HEADER_BYTES, segment.end)
        segment.sample()
    except OSError:
        return None
    finally:
        segment.reader.close()
    return segment
