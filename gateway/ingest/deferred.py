"""What becomes of messages that cannot be decided at once: they are deferred, and taken again or spooled."""

from __future__ import annotations

import asyncio

from gateway.devices.registry import Entry, Registry
from gateway.ingest.overflow import Overflow
from gateway.ingest.pipeline import Pipeline
from gateway.ingest.recognition import Recognition
from gateway.ingest.waiting import DeferredQueue, Waiting
from gateway.outcomes import Outcome
from gateway.storage.retry import Retrying

_DEVICES_AT_ONCE, _MESSAGES_AT_ONCE = 4096, 1024
"""One who invents devices has tens of thousands wait; the event loop is not held for all of them in one go."""


class Deferred:
    """Three tasks that empty the queues of what is deferred, back into the path."""

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
        self._pipeline, self._in_flight = pipeline, pipeline.in_flight
        self._registry, self._recognition = registry, recognition
        self._stores, self._devices, self._overflow = stores, devices, overflow

    async def resolve(self) -> None:
        """Task: look up devices that are not in the cache, one query for all that wait, or 4 096 of them."""
        queue = self._in_flight.unresolved
        while True:
            await queue.wait_nonempty()
            if not await self._overflow.in_time(self._devices, self._look_up):
                await self._spool(queue, self._devices)

    async def _look_up(self) -> None:
        """One try for the first that wait now; what can be decided goes on, although others may have to wait."""
        queue = self._in_flight.unresolved
        try:
            await self._registry.resolve(queue.entries(_DEVICES_AT_ONCE))
        finally:
            while decided := queue.release(_all_decided, _MESSAGES_AT_ONCE):
                self._pipeline.take_again(decided)
                await asyncio.sleep(0)

    async def decode(self) -> None:
        """Task: large messages, one at a time, and not ahead of the connection that writes them: rows take memory."""
        queue = self._in_flight.large
        while True:
            await queue.wait_nonempty()
            while self._in_flight.large_queue.full:
                await self._in_flight.until_changed()
            await self._pipeline.take_large(queue.first())
            await asyncio.sleep(0)  # many small ones may wait behind a large one

    async def recognise(self) -> None:
        """Task: tell redeliveries of what came to its end from redeliveries of what did not.

        What came before a connection can be told once all of it is settled.
        """
        queue = self._in_flight.unrecognised
        while True:
            await queue.wait_nonempty()
            first = queue.earliest()
            since = first.delivery.since
            if not self._in_flight.all_settled_before(since):
                # Look again: a message of an earlier connection may come in that waited for a device meanwhile.
                await self._in_flight.until_changed()
                continue
            self._recognition.all_settled(since)
            if self._can_tell(first) or await self._overflow.in_time(
                self._stores,
                lambda: self._recognition.load(first.delivery),  # noqa: B023
            ):
                self._pipeline.take_again(queue.release(self._can_tell))
            else:
                await self._spool(queue, self._stores)

    def _can_tell(self, one: Waiting) -> bool:
        return self._recognition.can_tell(one.message, one.delivery)

    async def _spool(self, queue: DeferredQueue, instead_of: Retrying) -> None:
        """What waits there now, to the disk; it stays where the disk will not have it.

        What repeats a message that came to its end meanwhile, in the spool perhaps, is not spooled again; what repeats
        one that is still on its way waits for that.
        """
        for since in {one.delivery.since for one in queue.all()}:
            if self._in_flight.all_settled_before(since):
                self._recognition.all_settled(since)
        known = self._recognition.knows_by_itself
        self._pipeline.end(
            queue.release(lambda one: known(one.number, one.message, one.delivery)), Outcome.DUPLICATE
        )
        waited = [one for one in queue.all() if self._recognition.all_settled_for(one.message, one.delivery)]
        if await self._overflow.keep(self._overflow.records_of(waited), instead_of):
            self._overflow.note([(one.number, one.message) for one in waited])
            gone = set(map(id, waited))
            queue.release(lambda one: id(one) in gone)
            self._pipeline.end(waited, Outcome.SPOOLED)


def _all_decided(one: Waiting) -> bool:
    return all(map(_decided, one.entries))


def _decided(entry: Entry) -> bool:
    return entry.device is not None or entry.refused() is not None
