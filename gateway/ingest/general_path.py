"""The general path: one message after the other, into the batch, to the dead letters, deferred, or to its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gateway import batches
from gateway.errors import MessageError
from gateway.ingest.in_flight import InFlight
from gateway.ingest.intake import Encoded, Intake
from gateway.ingest.recognition import Recognition
from gateway.ingest.routes import TopicRoute
from gateway.ingest.settlement import Settlement
from gateway.ingest.waiting import LARGE_BYTES, Unresolved, Waiting
from gateway.messages import Delivery, Message
from gateway.observability import events
from gateway.outcomes import IGNORED_REASONS, Outcome, Reason


class GeneralPath:
    """What the fast path leaves, and what was deferred. Synchronous but for large messages."""

    def __init__(
        self, intake: Intake, held: InFlight, recognition: Recognition, settlement: Settlement
    ) -> None:
        self._intake, self._in_flight, self._recognition = intake, held, recognition
        self._settlement = settlement
        self._defects: Counter[str] = Counter()
        self._dead_letter_times = batches.UniqueReceiveTimes()
        self._large_times = batches.UniqueReceiveTimes()

    def take(
        self,
        delivery: Delivery,
        routes: Sequence[TopicRoute],
        rows: Sequence[bytes | None],
        untimed: Mapping[int, int],
        without: Collection[int] = (),
    ) -> int:
        """A delivery in which some message has no row yet; how many devices the cache did not know.

        Args:
            rows, untimed: of the fast path, see :meth:`gateway.ingest.intake.Intake.fast_rows`.
            without: delivery numbers that have come to their end.
        """
        misses, batch = 0, self._in_flight.queue.open
        bare = _bare(delivery)
        every = zip(delivery.messages, routes, rows, strict=True)
        for number, (message, route, row) in enumerate(every, delivery.first):
            if number in without:
                continue
            if row is None or route.large:
                misses += not self.accept(number, message, route, bare)
            else:
                first_us = untimed.get(number - delivery.first)
                batch.add(number, message, route, delivery.received_us, row, untimed=first_us)
        # Once a delivery: its rows were all tried before the first of these.
        for route in {route for route, row in zip(routes, rows, strict=True) if row is None}:
            route.cool_down()
        return misses

    def accept(self, number: int, message: Message, route: TopicRoute, delivery: Delivery) -> bool:
        """Decide about one message, or defer it. False: its device is not known.

        Args:
            delivery: without its messages, of which one that waits must not hold the others.
        """
        if route.large or (len(message.payload) > LARGE_BYTES and self._intake.is_large(message, route)):
            route.wait()
            self._in_flight.large.add(Waiting(number, message, route, delivery))
            return True
        try:
            found = self._intake.encode(message, route, delivery)
        except MessageError as error:
            self._refuse(number, message, route, delivery, error, batch=self._in_flight.queue.open)
            return route.entry is not None and route.entry.device is not None
        except Exception as error:
            defect = self._defect(error)
            self._refuse(number, message, route, delivery, defect, batch=self._in_flight.queue.open)
            return True
        return self._add(number, message, route, delivery, found, batch=self._in_flight.queue.open)

    async def accept_large(self, one: Waiting) -> None:
        """Decide about a message that waited for its turn to be decoded; it is the first of those that do.

        It gets a receive time of its own, later than that of what came before it in its delivery: it will be in another
        batch. What comes from the spool keeps its times.
        """
        if not one.delivery.replayed:
            received_us = self._large_times.next(one.delivery.received_us + 1)
            one.delivery = msgspec.structs.replace(one.delivery, received_us=received_us)
        found = await self._encode_large(one)
        self._in_flight.large.pop()
        one.route.waited()
        small = len(one.message.payload) <= LARGE_BYTES
        queue = self._in_flight.queue if small else self._in_flight.large_queue
        batch = queue.open_for(one.delivery, one.message)
        if isinstance(found, MessageError):
            self._refuse(one.number, one.message, one.route, one.delivery, found, batch=batch)
        else:
            self._add(one.number, one.message, one.route, one.delivery, found, batch=batch)

    async def _encode_large(self, one: Waiting) -> Encoded | Unresolved | MessageError:
        """What it becomes; why it is refused is a value here, without the frames that an error would hold."""
        try:
            return await self._intake.encode_large(one.message, one.route, one.delivery)
        except MessageError as error:
            return MessageError(error.reason, error.detail)
        except Exception as error:
            return self._defect(error)

    def _defect(self, error: Exception) -> MessageError:
        defect = repr(error)[:500]
        self._defects[defect] += 1
        return MessageError(Reason.GATEWAY_DEFECT, defect)

    def _add(
        self,
        number: int,
        message: Message,
        route: TopicRoute,
        delivery: Delivery,
        found: Encoded | Unresolved,
        *,
        batch: batches.Batch,
    ) -> bool:
        """Into the batch, or deferred. False: its device is not known."""
        if isinstance(found, Unresolved):
            self._in_flight.unresolved.add(Waiting(number, message, route, delivery, found.entries))
            return False
        rows, untimed, ids, readings = found
        if untimed is None or not self._seen_before(number, message, route, delivery, untimed):
            batch.add(
                number,
                message,
                route,
                delivery.received_us,
                rows,
                readings=readings,
                untimed=untimed,
                ids=ids,
            )
        return True

    def _refuse(
        self,
        number: int,
        message: Message,
        route: TopicRoute,
        delivery: Delivery,
        error: MessageError,
        *,
        batch: batches.Batch,
    ) -> None:
        """To the dead letters, or to its end when configuration says that it is ignored.

        A dead letter that is replayed stays one: to call it ignored would hide it, or call it stored.
        """
        if error.reason in IGNORED_REASONS and batches.dead_letter_before(message) is None:
            self._settlement.ignore(number, route, error.reason)
            return
        # So that letters of one delivery keep their order.
        received_us = self._dead_letter_times.next(delivery.received_us)
        if not self._seen_before(number, message, route, delivery, received_us):
            letter = batches.dead_letter(number, message, route, received_us, error)
            batch.add_dead_letter(number, route, letter)

    def _seen_before(
        self, number: int, message: Message, route: TopicRoute, delivery: Delivery, received_us: int
    ) -> bool:
        """Whether the path is done with it: a redelivery of what is durable, or one that waits to be recognised."""
        if not delivery.may_repeat(message):
            return False
        if not self._recognition.can_tell(message, delivery):
            waiting = Waiting(number, message, route, delivery, received_us=received_us)
            self._in_flight.unrecognised.add(waiting)
        elif self._recognition.knows(number, message, delivery):
            self._settlement.end(number, route, Outcome.DUPLICATE)
        else:
            return False
        return True

    def report(self) -> None:
        """Tell what was flagged, and what the gateway itself failed on, since the last time."""
        flagged = self._intake.flagged
        for (stream, reason), count in flagged.items():
            events.flagged(stream=stream, reason=reason, count=count)
        flagged.clear()
        for error, count in self._defects.items():
            events.defect(stage="decode", error=error, count=count)
        self._defects.clear()


def _bare(delivery: Delivery) -> Delivery:
    """The delivery without its messages, but for one that is alone."""
    return delivery if len(delivery.messages) == 1 else msgspec.structs.replace(delivery, messages=())
