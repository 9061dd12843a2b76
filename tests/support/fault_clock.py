"""A clock for one daemon alone, by Debian's libfaketime: it can jump while the daemon runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class NoClockError(Exception):
    """libfaketime is not installed."""


class Clock:
    """Put :attr:`variables` into the daemon's environment; then :meth:`jump`.

    The monotonic clock goes on as ever, as when an operator or NTP sets the time.
    """

    def __init__(self, folder: Path) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        if not libraries:
            raise NoClockError("libfaketime is not installed: apt install faketime")
        self._file = folder / "clock"
        self.variables: Mapping[str, str] = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n", "utf-8")
        new.replace(self._file)  # never half a number
