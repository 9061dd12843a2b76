"""A device that says the same again and again: nothing but their number tells its messages apart."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.fault_cell import FaultCell
from tests.support.fault_proof import Verdict
from tests.support.session_broker import DOOR
from tests.support.sql import locked
from tests.support.waiting import eventually

SERIAL = "S-1"


class Equal:
    """Its messages in a cell, each of which must be a row.

    Args:
        publish: publishes a payload for ``SERIAL``.
    """

    def __init__(self, cell: FaultCell, publish: Callable[[bytes], object]) -> None:
        self._cell, self._publish = cell, publish
        self.published = 0

    def say(self, count: int) -> None:
        """So many more."""
        for _ in range(count):
            self._publish(DOOR)
        self.published += count

    def settled(self) -> None:
        """All are somewhere, and the daemon holds none."""
        self._cell.quiet(self.published)

    def killed_with(self, count: int) -> None:
        """Killed (-9) when it has received so many that it could not store."""
        received = self._cell.daemon.total()["received"] + count
        with locked(self._cell.databases.timeseries_dsn, "telemetry"):
            self.say(count)
            eventually(lambda: self._cell.daemon.total()["received"] >= received, what=f"{count} in flight")
            self._cell.daemon.kill()

    def prove(self) -> None:
        """As many rows as messages; then as :meth:`FaultCell.prove`."""
        self.settled()
        self._cell.end(self._verdict)

    def _verdict(self) -> Verdict:
        rows, messages = self._cell.rows(), self.published
        return Verdict(messages, rows, lost=max(messages - rows, 0), twice=max(rows - messages, 0))
