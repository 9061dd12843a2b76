"""The spool's folder, as the few operations that the spool needs of a disk.

A seam: the tests put a disk behind it that fails, and that forgets in a crash what was not synced. All errors
are OSError, except that unreadable sectors read as zeros, which no checksum lets pass.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from gateway.errors import StartError

LOCK = "lock"
TRIAL = "trial"
SESSION = "session"
SESSION_NEW = "session.new"
SUSPECTS = "suspects"
_TRIAL_BYTES = 16 * 1024
_SECTOR = 4096


class File:
    """An open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._descriptor).st_size

    @property
    def named(self) -> bool:
        """Whether it can still be found in a folder: false when it was deleted."""
        return os.fstat(self._descriptor).st_nlink > 0

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, fewer at the end of the file; zeros for sectors that the disk cannot read."""
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        if size <= _SECTOR:
            return bytes(size)
        half = size // 2
        return self.read(offset, half) + self.read(offset + half, size - half)

    def write(self, offset: int, content: bytes) -> None:
        """All of it, or an error after some of it."""
        left = memoryview(content)
        while left:
            written = os.pwrite(self._descriptor, left, offset)
            offset, left = offset + written, left[written:]

    def truncate(self, size: int) -> None:
        """Cut off what is behind ``size``."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """Make durable what was written and cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


class Disk:
    """One folder, for one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._folder = self._lock = -1

    def look(self) -> None:
        """Open the folder to read in it, beside the process that has it.

        Raises:
            OSError: it cannot be read.
        """
        self._folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self) -> None:
        """Take possession of the folder; it is made, within its parent at most: more than that is a mistake.

        Raises:
            StartError: it cannot be used, or another process uses it.
        """
        try:
            self.folder.parent.mkdir(mode=0o700, exist_ok=True)  # a worker's folder lies in the gateway's
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self.look()
            self._lock = self._descriptor(LOCK, os.O_RDWR | os.O_CREAT)
            self._take_lock()
        except OSError as error:
            self.close()
            raise StartError(
                f"spool.folder {self.folder}: {error.strerror}: it must be a folder that user {os.geteuid()} "
                "may write to, on a disk that is not read-only"
            ) from error

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            self.close()
            raise StartError(
                f"spool.folder {self.folder} is in use by process {owner}: every gateway needs a folder of its own"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def names(self) -> list[str]:
        """Names of all files."""
        return os.listdir(self._folder)  # noqa: PTH208 - of the open folder, whatever has its name by now

    def create(self, name: str) -> File:
        """A new file, for this user only; its name is durable after :meth:`sync`."""
        return File(self._descriptor(name, os.O_RDWR | os.O_CREAT | os.O_EXCL))

    def open_file(self, name: str, *, write: bool = False) -> File:
        """A file that is there."""
        return File(self._descriptor(name, os.O_RDWR if write else os.O_RDONLY))

    def _descriptor(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._folder)

    def remove(self, name: str) -> None:
        """Delete a file; it may come back in a crash before :meth:`sync`."""
        os.unlink(name, dir_fd=self._folder)

    def read_all(self, name: str) -> bytes:
        """The whole content of a small file."""
        file = self.open_file(name)
        try:
            return file.read(0, file.size)
        finally:
            file.close()

    def replace(self, name: str, content: bytes) -> None:
        """Put a small file in the place of what has this name, durably: there is always the one or the other."""
        new = f"{name}.new"
        with contextlib.suppress(FileNotFoundError):
            self.remove(new)  # a crash left it
        file = self.create(new)
        try:
            file.write(0, content)
            file.sync()
        finally:
            file.close()
        os.replace(new, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self.sync()

    def try_out(self) -> None:
        """See that a file can be made, filled and made durable; nothing is left of it.

        Raises:
            OSError: it cannot.
        """
        with contextlib.suppress(FileNotFoundError):
            self.remove(TRIAL)  # a crash left it
        trial = self.create(TRIAL)
        try:
            trial.write(0, bytes(_TRIAL_BYTES))
            trial.sync()
        finally:
            trial.close()
            self.remove(TRIAL)

    def sync(self) -> None:
        """Make the names durable."""
        os.fsync(self._folder)

    def close(self) -> None:
        """Give the folder free. Idempotent."""
        for descriptor in (self._folder, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._lock = -1
