"""Task: partitions of the days to come, on plain PostgreSQL, made ahead of need.

A partition that is missing costs no reading: the DEFAULT partition takes it. So nothing waits for one, and what is in
the way (a long query, a backup) only postpones it.
"""

from __future__ import annotations

import asyncio
import datetime as dt

from gateway import errors, settings
from gateway.observability import events
from gateway.storage import engines, pools
from gateway.storage.retry import Retrying

_AHEAD = dt.timedelta(days=7)
_ALL_MADE = 3600.0
"""Seconds until it is looked again."""
_POSTPONED = 60.0


class PartitionUpkeep:
    """Keeps a week of partitions ready; has a connection of its own, for it may take long, while it is at work.

    Args:
        patience: with what must be mended first.
    """

    def __init__(self, database: settings.DatabaseSettings, patience: Retrying) -> None:
        self._database, self._patience = database, patience
        self._left: set[str] = set()
        self._postponed = False

    async def keep(self) -> None:
        """Run until cancelled."""
        while True:
            await self._patience.until_done(self.once)
            await asyncio.sleep(_POSTPONED if self._postponed else _ALL_MADE)

    async def once(self) -> None:
        """Make what is missing and can be had now.

        Raises:
            StandingError: an operator must mend something first; all else only postpones it.
        """
        try:
            found = await self._make(dt.datetime.now(dt.UTC).date())
        except errors.StandingError:
            raise
        except errors.StoreError as error:
            self._postpone(str(error), [])
            return
        if found.made:
            events.partitions_made(names=found.made)
        for name in found.left:
            if name not in self._left:
                events.partition_left(name=name)
        self._left.update(found.left)
        if found.postponed:
            self._postpone("; ".join(sorted(set(found.postponed.values()))), list(found.postponed))
        else:
            self._postponed = False

    async def _make(self, today: dt.date) -> engines.PartitionOutcome:
        connection = await pools.connect(
            self._database, application_name="gateway-partitions", name="timeseries"
        )
        try:
            with pools.translate("timeseries"):
                engine = await engines.detect(connection)
                return await engine.make_partitions(connection, today - dt.timedelta(days=1), today + _AHEAD)
        finally:
            connection.terminate()

    def _postpone(self, reason: str, names: list[str]) -> None:
        events.partitions_postponed(names=names, reason=reason, retry_in=_POSTPONED, news=not self._postponed)
        self._postponed = True
