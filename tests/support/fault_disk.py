"""File systems that are soon full: a tmpfs of a few megabytes, for a tablespace or a folder. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from tests.support.servers import Postgres
from tests.support.sql import execute

MEGABYTES = 48
SPARE = 512 * 1024
"""Bytes left free by a ballast: some seconds of readings."""


UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Put before a command of root's, so that the permissions of files count for it too."""


class NoDiskError(Exception):
    """No file system can be mounted here."""


class SmallFolder:
    """A folder on a file system of its own; there while the ``with`` block lasts."""

    def __init__(self, folder: Path, *, megabytes: int = MEGABYTES) -> None:
        self.folder, self._megabytes = folder, megabytes
        self._ballast = folder / "ballast"

    def fill(self, *, spare: int = SPARE) -> None:
        """Leave so many bytes free."""
        free = shutil.disk_usage(self.folder).free - spare
        with self._ballast.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(free, 1))

    def empty(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)  # of an earlier cell with the same server
        try:
            _mount("-t", "tmpfs", "-o", f"size={self._megabytes}m", "tmpfs", str(self.folder))
        except NoDiskError:
            self.folder.rmdir()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoDiskError(f"no file system can be mounted here: {done.stderr.strip()}")


class SmallDisk(SmallFolder):
    """A tablespace of a server on loopback on such a file system; its tables must be gone in the end."""

    NAME = "small"

    def __init__(self, server: Postgres) -> None:
        super().__init__(server.folder / "small")
        self._server = server

    def take(self, dsn: str, table: str) -> None:
        """Move a table there, with its partitions."""
        execute(dsn, f"ALTER TABLE {table} SET TABLESPACE {self.NAME}")
        execute(dsn, _MOVE_PARTITIONS.format(table=table, name=self.NAME))

    def __enter__(self) -> Self:
        super().__enter__()
        owner = self._server.cluster.stat()
        os.chown(self.folder, owner.st_uid, owner.st_gid)
        execute(
            self._server.dsn(),
            f"CREATE TABLESPACE {self.NAME} LOCATION '{self._server._inside(self.folder)}'",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.empty()
        execute(self._server.dsn(), f"DROP TABLESPACE {self.NAME}")
        super().__exit__()


_MOVE_PARTITIONS = """
DO $$ DECLARE part regclass; BEGIN
  FOR part IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass LOOP
    EXECUTE format('ALTER TABLE %s SET TABLESPACE {name}', part);
  END LOOP;
END $$
"""
