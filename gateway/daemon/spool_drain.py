"""Drain spools without the daemon: what it left behind when it will not run again, or with fewer workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gateway import settings
from gateway.daemon import foreground
from gateway.ingest.assembly import Foundation, IngestPath, spool_path
from gateway.observability.health import Health

Progress = Callable[[int, int, str], None]
"""Called with the number of records done and of all in the folder, and with what is waited for; empty: nothing is."""


class DrainResult(msgspec.Struct):
    """What became of the records. True at every instant, also when the drain ends early.

    Attributes:
        ended: how many, by outcome.
        left: still in the folder that is drained, or was last.
    """

    ended: Counter[str] = msgspec.field(default_factory=Counter)
    left: int = 0

    def summary(self) -> str:
        """The same for people."""
        ended = ", ".join(f"{count} {outcome}" for outcome, count in self.ended.items())
        if self.left:
            return f"{ended or 'nothing was drained'}; about {self.left} left in the spool"
        return ended or "nothing was spooled"

    def as_dict(self) -> dict[str, int]:
        """The same for scripts: how many by outcome, and ``left`` where any are."""
        return {**self.ended, "left": self.left} if self.left else dict(self.ended)


async def run(
    options: settings.Settings, folders: Iterable[Path], result: DrainResult, *, progress: Progress
) -> None:
    """Send what is spooled in these folders through the path, one after the other.

    Args:
        result: counts what was done, also when this ends early; what is left stays in the spool.

    Raises:
        StartError: a folder cannot be used, a running daemon has it for instance.
        SpoolError: it cannot be read.
        StoreError: a database must be mended, or was away for too long.
    """
    for folder in folders:
        spool = options.spool.model_copy(update={"folder": folder})
        await _drain(foreground.for_a_job(options.model_copy(update={"spool": spool})), result, progress)


async def _drain(options: settings.Settings, result: DrainResult, progress: Progress) -> None:
    base, before = Foundation(options, Health(), patience=foreground.PATIENCE), result.ended.copy()
    spool, path = base.spool, spool_path(base)
    assert spool is not None
    assert path is not None
    base.open()
    if not spool.records:  # nothing to ask a database for
        await base.close()
        return

    def count() -> None:
        result.ended, result.left = before + _outcomes(path), spool.records

    def tell(waits: str) -> None:
        count()
        done = result.ended.total() - before.total()
        progress(done, done + result.left, waits)

    try:
        await foreground.run(base, path, path.source.until_empty(), tell)
    finally:
        count()


def _outcomes(path: IngestPath) -> Counter[str]:
    ended: Counter[str] = Counter()
    for tally in path.routes.tallies.values():
        ended.update({outcome.value: count for outcome, count in tally.settled.items() if count})
    return ended
