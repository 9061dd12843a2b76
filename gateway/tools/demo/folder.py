"""The one folder that the demo touches: who may use it, and what lies where."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from gateway.errors import StartError

DEFAULT = Path(".demo")
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
        with self._lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if fresh:
                    self._clear()
            except BlockingIOError:
                text = f"another demo runs in {self.path}: stop that one, or use another place with --folder"
                raise StartError(text) from None
            except OSError as error:
                raise self._unusable(error) from error
            yield

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

    def _lock(self) -> TextIO:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / _LOCK).exists() and any(self.path.iterdir()):
                raise StartError(
                    f"{self.path} is not empty, and not the demo's; choose another with --folder"
                )
            return (self.path / _LOCK).open("a")
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StartError:
        return StartError(f"cannot use {self.path}: {error.strerror}; choose another with --folder")

    def _clear(self) -> None:
        for place in self.path.iterdir():
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            elif place.name != _LOCK:
                place.unlink()
