"""Reads the frames of a segment forward, and finds the next one behind damage."""

from __future__ import annotations

from gateway.spool import records
from gateway.spool.disk import Disk, File
from gateway.spool.layout import HEADER_BYTES, name_of

_BLOCK_BYTES = 64 * 2**10
_WORK, _LEAST_WORK = 2**29, 4 * 2**10
"""Bytes that are looked at for one damage, about a second; and what one frame counts at least."""
_SKIPPED = 2**24
"""Bytes that are not searched any further then: what a packet has at most, by the default of mqtt.max_packet_bytes."""


class Reader:
    """Reads one segment. All methods raise OSError; its file is open from the first read to :meth:`close`.

    Attributes:
        position: offset of the next frame.
        damage: offset and length of what was skipped.
    """

    def __init__(self, disk: Disk, number: int) -> None:
        self._disk, self._number, self._seed = disk, number, records.seed(number)
        self._opened: File | None = None
        self.position = HEADER_BYTES
        self.damage: dict[int, int] = {}

    @property
    def _file(self) -> File:
        if self._opened is None:
            self._opened = self._disk.open_file(name_of(self._number))
        return self._opened

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._file.size

    def head(self) -> bytes:
        """The bytes in which the header is."""
        return self._file.read(0, HEADER_BYTES)

    def close(self) -> None:
        """Close the file; a later read opens it again. Idempotent."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def read(self, end: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Offset and body of the next valid frames before ``end``; empty when there are no more.

        Holds ``max_bytes``; one frame that is larger is read alone.
        """
        while self.position < end:
            content = self._file.read(self.position, min(max_bytes, end - self.position))
            found = records.valid_frames(content, self._seed, self.position) or self._large(
                self.position, end
            )
            if found:
                offset, body = found[-1]
                self.position = offset + records.HEAD_BYTES + len(body)
                return found
            self._skip(end)
        return []

    def copy(self, offset: int, length: int, target: File) -> None:
        """These bytes into another file, at the same place."""
        for start in range(offset, offset + length, _BLOCK_BYTES):
            target.write(start, self._file.read(start, min(_BLOCK_BYTES, offset + length - start)))

    def _large(self, offset: int, end: int) -> list[tuple[int, bytes]]:
        """The frame at ``offset``, whatever its size; none if it is not valid."""
        length = self._length(offset, end)
        if not length:
            return []
        content = self._file.read(offset, records.HEAD_BYTES + length)
        return records.valid_frames(content, self._seed, offset)

    def _length(self, offset: int, end: int) -> int:
        """Bytes of the body, as the frame at ``offset`` says; 0: it says what cannot be."""
        head = self._file.read(offset, records.HEAD_BYTES)
        if len(head) < records.HEAD_BYTES:
            return 0
        length, _ = records.read_head(head)
        return length if records.may_begin(length) and offset + records.HEAD_BYTES + length <= end else 0

    def _skip(self, end: int) -> None:
        """To the next valid frame. The length of the damaged one may be what is damaged: it is tried, not believed."""
        start = self.position
        length = self._length(start, end)
        behind = start + records.HEAD_BYTES + length
        next_ = behind if length and self._large(behind, end) else self._search(start + 1, end)
        self.damage[start] = next_ - start
        self.position = next_

    def _search(self, start: int, end: int) -> int:
        """Offset of the first valid frame from ``start`` on; ``end`` when there is none.

        It ends somewhere before, to go on from there as from another damage, where a payload is full of what may be
        frames: a publisher made it so that each has to be looked at. The longest body is skipped then.
        """
        begun, left = start, _WORK
        while start + records.HEAD_BYTES < end:
            content = self._file.read(start, min(_BLOCK_BYTES, end - start))
            if len(content) <= records.HEAD_BYTES:
                break
            for mark in records.MARK.finditer(content, records.MARK_AT):
                at = mark.start() - records.MARK_AT
                length, _ = records.read_head(content, at)
                if start + at + records.HEAD_BYTES + length > end:
                    continue
                if self._large(start + at, end):
                    return start + at
                left -= max(length, _LEAST_WORK)
                if left < 0:
                    return min(end, max(start + at + 1, begun + _SKIPPED))
            start += len(content) - records.HEAD_BYTES
        return end
