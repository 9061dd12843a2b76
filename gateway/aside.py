"""What becomes of messages that cannot be decided at once: they wait aside, and are taken again or spooled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gateway.devices.registry import Entry, Registry
from gateway.held import Held
from gateway.outcomes import Outcome
from gateway.overflow import Overflow
from gateway.patience import Patience
from gateway.waiting import Waiting, WaitingRoom

Attempt = Callable[[], Awaitable[None]]


class Aside:
    """Two tasks that empty two waiting rooms.

    Args:
        recall: has the ledger learn what was stored before the connection that began with this delivery number.
        take_again: called with messages that can be decided now.
        end: called with messages that have come to their end.
    """

    def __init__(
        self,
        held: Held,
        registry: Registry,
        recall: Callable[[int], Awaitable[None]],
        *,
        stores: Patience,
        devices: Patience,
        overflow: Overflow | None,
        take_again: Callable[[Sequence[Waiting]], None],
        end: Callable[[Sequence[Waiting], Outcome], None],
    ) -> None:
        self._held, self._registry, self._recall = held, registry, recall
        self._stores, self._devices, self._overflow = stores, devices, overflow
        self._take_again, self._end = take_again, end

    async def resolve(self) -> None:
        """Task: look up devices that are not in the cache, one query for all that wait."""
        room = self._held.unresolved
        while True:
            await room.somebody()
            if not await self._in_time(self._devices, self._look_up):
                await self._spool(room, self._devices)

    async def _look_up(self) -> None:
        """One try for all who wait now; whoever can be decided goes on, although others may have to wait."""
        room = self._held.unresolved
        try:
            await self._registry.resolve(room.entries())
        finally:
            decided = room.call_in(lambda one: all(map(_decided, one.entries)))
            if decided:
                self._take_again(decided)

    async def recognise(self) -> None:
        """Task: tell redeliveries of what was stored from redeliveries of what was not.

        The ledger of before the connection is complete once everything received before it has come to its end.
        """
        room = self._held.unrecognised
        while True:
            await room.somebody()
            since = room.since()
            if not self._held.none_before(since):
                # Look again at who waits: from an earlier connection somebody may come who waited for a device.
                await self._held.until_changed()
                continue
            if await self._in_time(self._stores, lambda: self._recall(since)):  # noqa: B023
                self._take_again(room.call_in(lambda one: one.chunk.since <= since))  # noqa: B023
            else:
                await self._spool(room, self._stores)

    async def _in_time(self, patience: Patience, attempt: Attempt) -> bool:
        """Do it, however long it takes; with a spool, no longer than messages wait. False: it is not done."""
        if self._overflow is not None:
            return await self._overflow.in_time(patience, attempt)
        await patience.until_done(attempt)
        return True

    async def _spool(self, room: WaitingRoom, instead_of: Patience) -> None:
        """Those who wait there now, to the disk; they stay where the disk will not have them."""
        assert self._overflow is not None
        knows = self._overflow.knows
        # They may be in the spool since they came to wait, by an earlier connection or process.
        redelivered = room.call_in(lambda one: _may_be_redelivery(one) and knows(one.message, one.chunk.turn))
        self._end(redelivered, Outcome.DUPLICATE)
        waited = room.all()
        if await self._overflow.keep(self._overflow.records_of(waited), instead_of):
            gone = set(map(id, waited))
            room.call_in(lambda one: id(one) in gone)
            self._end(waited, Outcome.SPOOLED)


def _may_be_redelivery(one: Waiting) -> bool:
    return one.message.duplicate and one.chunk.resumed


def _decided(entry: Entry) -> bool:
    return entry.device is not None or entry.refusal is not None
