"""Reads the frames of a segment forward, and finds the next one behind damage."""

from __future__ import annotations

from gateway.buffer import records
from gateway.buffer.disk import Disk, File
from gateway.buffer.layout import HEADER_BYTES, name_of

_BLOCK_BYTES = 64 * 2**10


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
        head = self._file.read(offset, records.HEAD_BYTES)
        if len(head) < records.HEAD_BYTES:
            return []
        length, _ = records.read_head(head)
        if offset + records.HEAD_BYTES + length > end:
            return []
        content = self._file.read(offset, records.HEAD_BYTES + length)
        return records.valid_frames(content, self._seed, offset)

    def _skip(self, end: int) -> None:
        """To the next valid frame. The length of the damaged one is not believed: it may be what is damaged."""
        next_ = self._search(self.position + 1, end)
        self.damage[self.position] = next_ - self.position
        self.position = next_

    def _search(self, start: int, end: int) -> int:
        """Offset of the first valid frame from ``start`` on; ``end`` when there is none."""
        while start + records.HEAD_BYTES < end:
            content = self._file.read(start, min(_BLOCK_BYTES, end - start))
            if len(content) <= records.HEAD_BYTES:
                break
            for mark in records.MARK.finditer(content, records.HEAD_BYTES):
                offset = start + mark.start() - records.HEAD_BYTES
                if self._large(offset, end):
                    return offset
            start += len(content) - records.HEAD_BYTES
        return end
