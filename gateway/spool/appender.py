"""Writes groups of records to the end of the newest segment. Blocking: it is called in a thread."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Sequence

from gateway import clock
from gateway.spool import records
from gateway.spool.disk import Disk, File
from gateway.spool.layout import header, name_of


class Appender:
    """Appends; whatever fails is cut off again, and the segment that it failed in gets no more.

    After a failed fsync it is not known what of the file is on disk, nor would a second fsync tell: so it is cut to
    what was durable before, and a new one is begun. Until that cut is durable itself nothing more is written.
    """

    def __init__(self, disk: Disk, epoch: bytes) -> None:
        self._disk, self._epoch = disk, epoch
        self._file: File | None = None
        self._number = self._end = self._seed = 0
        self._failed: tuple[int, int] | None = None
        self._busy = threading.Lock()

    def append(self, bodies: Sequence[bytes], number: int | None) -> int:
        """Write, make durable.

        Args:
            number: of the segment to begin; None: go on in the present one.

        Returns:
            Offset behind the last frame.

        Raises:
            OSError: nothing of it counts; the next append must begin a segment.
        """
        with self._busy:
            self._undo_failed_append()
            if number is None:
                return self._write(bodies)
            self.seal()
            self._file = self._disk.create(name_of(number))
            self._number, self._end, self._seed = number, 0, records.seed(number)
            return self._write(bodies)

    def _write(self, bodies: Sequence[bytes]) -> int:
        assert self._file is not None
        start = [] if self._end else [header(clock.now_us(), self._epoch)]
        offset = self._end + sum(map(len, start))
        content = b"".join([*start, *records.frames(bodies, self._seed, offset)])
        try:
            self._file.write(self._end, content)
            self._file.sync()
            if start:
                self._disk.sync()
            _check_not_deleted(self._file)
        except BaseException:
            self._failed = (self._number, self._end)
            self.seal()
            with contextlib.suppress(OSError):
                self._undo_failed_append()
            raise
        self._end += len(content)
        return self._end

    def _undo_failed_append(self) -> None:
        """Make sure that nothing of a failed append can come back."""
        if self._failed is None:
            return
        number, end = self._failed
        with contextlib.suppress(FileNotFoundError):
            if end:
                cut(self._disk, number, end)
            else:
                self._disk.remove(name_of(number))
        self._disk.sync()
        self._failed = None

    def seal(self) -> None:
        """Close the present segment; the next append begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Wait for a write that is under way, then close. Idempotent."""
        with self._busy:
            self.seal()
            with contextlib.suppress(OSError):
                self._undo_failed_append()


def _check_not_deleted(file: File) -> None:
    """Raise OSError when the file was deleted: what is written to it is on no disk for long."""
    if not file.named:
        raise OSError(errno.ENOENT, "a segment was deleted while it was written to")


def cut(disk: Disk, number: int, end: int) -> None:
    """Make a segment end at this offset, durably.

    Raises:
        OSError: it may or may not be cut.
    """
    file = disk.open_file(name_of(number), write=True)
    try:
        file.truncate(end)
        file.sync()
    finally:
        file.close()
