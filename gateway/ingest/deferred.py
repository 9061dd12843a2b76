"""What becomes of messages that cannot be decided at once: they wait, and are taken again or spooled."""

from __future__ import annotations

from gateway.devices.registry import Entry, Registry
from gateway.ingest.overflow import Overflow
from gateway.ingest.pipeline import Pipeline
from gateway.ingest.recognition import Recognition
from gateway.ingest.waiting import DeferredQueue, Waiting
from gateway.outcomes import Outcome
from gateway.storage.retry import Retrying


class Deferred:
    """Two tasks that empty the two queues of what is deferred, back into the path."""

    def __init__(
        self,
        pipeline: Pipeline,
        registry: Registry,
        recognition: Recognition,
        *,
        stores: Retrying,
        devices: Retrying,
        overflow: Overflow,
    ) -> None:
        self._pipeline, self._held = pipeline, pipeline.held
        self._registry, self._recognition = registry, recognition
        self._stores, self._devices, self._overflow = stores, devices, overflow

    async def resolve(self) -> None:
        """Task: look up devices that are not in the cache, one query for all that wait."""
        room = self._held.unresolved
        while True:
            await room.somebody()
            if not await self._overflow.in_time(self._devices, self._look_up):
                await self._spool(room, self._devices)

    async def _look_up(self) -> None:
        """One try for all who wait now; whoever can be decided goes on, although others may have to wait."""
        room = self._held.unresolved
        try:
            await self._registry.resolve(room.entries())
        finally:
            decided = room.call_in(lambda one: all(map(_decided, one.entries)))
            if decided:
                self._pipeline.take_again(decided)

    async def recognise(self) -> None:
        """Task: tell redeliveries of what came to its end from redeliveries of what did not.

        What came before a connection can be told once all of it is settled.
        """
        room = self._held.unrecognised
        while True:
            await room.somebody()
            first = room.earliest()
            since = first.delivery.since
            if not self._held.none_before(since):
                # Look again at who waits: from an earlier connection somebody may come who waited for a device.
                await self._held.until_changed()
                continue
            self._recognition.all_settled(since)
            if self._can_tell(first) or await self._overflow.in_time(
                self._stores,
                lambda: self._recognition.load(first.delivery),  # noqa: B023
            ):
                self._pipeline.take_again(room.call_in(self._can_tell))
            else:
                await self._spool(room, self._stores)

    def _can_tell(self, one: Waiting) -> bool:
        return self._recognition.can_tell(one.message, one.delivery)

    async def _spool(self, room: DeferredQueue, instead_of: Retrying) -> None:
        """Those who wait there now, to the disk; they stay where the disk will not have them.

        What repeats a message that came to its end meanwhile, in the spool perhaps, is not spooled again; what repeats
        one that is still on its way waits for that.
        """
        for since in {one.delivery.since for one in room.all()}:
            if self._held.none_before(since):
                self._recognition.all_settled(since)
        known = self._recognition.knows_by_itself
        self._pipeline.end(
            room.call_in(lambda one: known(one.number, one.message, one.delivery)), Outcome.DUPLICATE
        )
        waited = [one for one in room.all() if self._recognition.all_settled_for(one.message, one.delivery)]
        if await self._overflow.keep(self._overflow.records_of(waited), instead_of):
            self._overflow.note([(one.number, one.message) for one in waited])
            gone = set(map(id, waited))
            room.call_in(lambda one: id(one) in gone)
            self._pipeline.end(waited, Outcome.SPOOLED)


def _decided(entry: Entry) -> bool:
    return entry.device is not None or entry.refused() is not None
