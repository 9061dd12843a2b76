"""A disk in memory that fails when told to, and that forgets in a crash whatever was not synced.

Stricter than any real one: a write that was not synced survives a crash whole, torn at either end, or not at
all, each for itself; a new name that was not synced may be gone, a deleted one may be back; after a failed sync
the cache still shows what was written, a later sync succeeds, and what the disk has of it is chance.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

from gateway.spool.disk import Disk, File

Change = tuple[int, bytes] | int
"""A write (offset, bytes), or a cut to a size."""


class PowerLost(BaseException):
    """The machine stops here."""


class Inode:
    """A file: what the cache shows, what the disk has, and what is between them."""

    def __init__(self) -> None:
        self.cached, self.durable = bytearray(), bytearray()
        self.dirty: list[Change] = []
        self.named = True


def change(content: bytearray, one: Change) -> None:
    """Apply a change; bytes that come to be before it are zeros."""
    if isinstance(one, int):
        del content[one:]
        content.extend(bytes(one - len(content)))
        return
    offset, written = one
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(written)] = written


class ForgetfulDisk(Disk):
    """See the module.

    Attributes:
        broken: operation to the errno with which it fails, until it is mended.
        once: the operation that fails the next time only.
        lives: operations until the power is lost; None: it is not.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__(Path("/nowhere"))
        self.chance = chance
        self.names_cached: dict[str, Inode] = {}
        self.names_durable: dict[str, Inode] = {}
        self.broken: dict[str, int] = {}
        self.once: str | None = None
        self.lives: int | None = None

    def step(self, operation: str) -> None:
        """One operation begins: it may be the last, and it may fail."""
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise PowerLost
        if operation == self.once:
            self.once = None
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if operation in self.broken:
            raise OSError(self.broken[operation], os.strerror(self.broken[operation]))

    def open(self) -> None:
        """It is always ours."""

    def names(self) -> list[str]:
        """As the cache shows them."""
        return list(self.names_cached)

    def create(self, name: str) -> File:
        """Not durable before :meth:`sync`."""
        self.step("create")
        if name in self.names_cached:
            raise FileExistsError(name)
        self.names_cached[name] = Inode()
        return ForgetfulFile(self, self.names_cached[name])

    def open_file(self, name: str, *, write: bool = False) -> File:
        """A file that the cache shows."""
        if name not in self.names_cached:
            raise FileNotFoundError(name)
        return ForgetfulFile(self, self.names_cached[name])

    def remove(self, name: str) -> None:
        """Not durable before :meth:`sync`."""
        self.step("remove")
        if name not in self.names_cached:
            raise FileNotFoundError(name)
        self.names_cached.pop(name).named = False

    def sync(self) -> None:
        """All names are durable."""
        self.step("sync_folder")
        self.names_durable = dict(self.names_cached)

    def close(self) -> None:
        """Nothing is held."""

    def crash(self) -> None:
        """Lose power; what comes after is what the disk has."""
        self.broken, self.once, self.lives = {}, None, None
        survivors = {}
        for name in sorted(self.names_cached.keys() | self.names_durable.keys()):
            inode = self.names_durable.get(name) or self.names_cached[name]
            certain = self.names_cached.get(name) is self.names_durable.get(name)
            if certain or self.chance.random() < 0.5:
                survivors[name] = inode
        for inode in survivors.values():
            self.write_back(inode)
            inode.cached, inode.named = bytearray(inode.durable), True
        self.names_cached, self.names_durable = survivors, dict(survivors)

    def write_back(self, inode: Inode) -> None:
        """As much of what is dirty as chance will have it."""
        for one in inode.dirty:
            if self.chance.random() < 0.3:
                continue
            if isinstance(one, int) or self.chance.random() < 0.5:
                change(inode.durable, one)
                continue
            offset, written = one
            start, stop = sorted(self.chance.randint(0, len(written)) for _ in range(2))
            if self.chance.random() < 0.7:
                start = 0
            change(inode.durable, (offset + start, written[start:stop]))
        inode.dirty = []


class ForgetfulFile(File):
    """A file of that disk."""

    def __init__(self, disk: ForgetfulDisk, inode: Inode) -> None:
        super().__init__(-1)
        self._disk, self._inode = disk, inode

    @property
    def size(self) -> int:
        """As the cache shows it."""
        return len(self._inode.cached)

    @property
    def named(self) -> bool:
        """Whether it was not deleted."""
        return self._inode.named

    def read(self, offset: int, size: int) -> bytes:
        """From the cache."""
        return bytes(self._inode.cached[offset : offset + size])

    def write(self, offset: int, content: bytes) -> None:
        """Into the cache; a part of it when it fails."""
        try:
            self._disk.step("write")
        except (OSError, PowerLost):
            part = content[: self._disk.chance.randint(0, len(content))]
            self._change((offset, part))
            raise
        self._change((offset, content))

    def truncate(self, size: int) -> None:
        """In the cache."""
        self._disk.step("truncate")
        self._change(size)

    def _change(self, one: Change) -> None:
        change(self._inode.cached, one)
        self._inode.dirty.append(one)

    def sync(self) -> None:
        """All is durable; when it fails, some of it, and what is dirty is forgotten."""
        try:
            self._disk.step("sync")
        except OSError:
            self._disk.write_back(self._inode)
            raise
        for one in self._inode.dirty:
            change(self._inode.durable, one)
        self._inode.dirty = []

    def close(self) -> None:
        """Nothing is held."""
