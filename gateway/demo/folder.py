"""The one folder that the demo touches: who may use it, and what lies where."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import StartError

_LOCK = "demo.lock"


class Folder:
    """``.demo/``, used by one demo at a time.

    ==================  ========================================
    ``postgres/``       the cluster, its socket, its password
    ``*.log``           what servers, gateway and demo said
    ``gateway.toml``    configuration of the gateway
    ``secrets/``        passwords of the database roles
    ``psql.json``       environment in which ``psql`` comes here
    ``mosquitto.conf``  configuration of the broker
    ``demo.lock``       held while servers run
    ==================  ========================================
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def config(self) -> Path:
        """The gateway's configuration."""
        return self.path / "gateway.toml"

    @property
    def secrets(self) -> Path:
        """Where the passwords of the database roles lie."""
        return self.path / "secrets"

    @property
    def psql(self) -> Path:
        """The environment in which a bare ``psql`` comes to the demo's database."""
        return self.path / "psql.json"

    @property
    def postgres(self) -> Path:
        """Where the cluster lives."""
        return self.path / "postgres"

    def log(self, part: str) -> Path:
        """Where a part's output goes."""
        return self.path / f"{part}.log"

    @contextlib.contextmanager
    def claimed(self, *, fresh: bool = False) -> Iterator[None]:
        """Hold the folder for the block; made when missing, emptied of an earlier demo when ``fresh``.

        Raises:
            StartError: another demo runs here, the folder holds something else, or it cannot be written.
        """
        try:
            self._make()
            with (self.path / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if fresh:
                    self._clear()
                yield
        except BlockingIOError:
            raise StartError(
                f"another demo runs in {self.path}: stop that one, or use another place with --folder"
            ) from None

    def busy(self) -> bool:
        """Whether a demo, or only its servers, runs here now."""
        try:
            with (self.path / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            strange = not (self.path / _LOCK).exists() and any(self.path.iterdir())
        except OSError as error:
            text = f"cannot use {self.path}: {error.strerror}; choose another with --folder"
            raise StartError(text) from error
        if strange:
            raise StartError(f"{self.path} is not empty, and not the demo's; choose another with --folder")
        if not os.access(self.path, os.W_OK):
            raise StartError(f"cannot write into {self.path}: choose another place with --folder")

    def _clear(self) -> None:
        for place in self.path.iterdir():
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            elif place.name != _LOCK:
                place.unlink()
