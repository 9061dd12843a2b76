"""Whether a message that may have come before has come to its end before: stored, spooled or a dead letter.

What this process received is told by delivery number, once all of the earlier connection is settled. What an earlier
process received is told by the packet id, from the spool's records and the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from gateway.messages import Delivery, Message, Session, digest
from gateway.sessions.redeliveries import Redeliveries
from gateway.writer.ledger import Ledger

Load = Callable[[Session, int], Awaitable[None]]


class Recognition:
    """Of one path.

    Args:
        spooled: whether an earlier process spooled this very message in the session.
        load: has the ledger learn what was stored in the session, for messages since this delivery number.
    """

    def __init__(
        self,
        redeliveries: Redeliveries,
        ledger: Ledger,
        *,
        spooled: Callable[[Message, Delivery], bool],
        load: Load,
    ) -> None:
        self._redeliveries, self._ledger, self._spooled = redeliveries, ledger, spooled
        self._load = load
        self._settled_before = -1

    def all_settled(self, before: int) -> None:
        """Everything with a lesser delivery number than this has come to its end."""
        self._settled_before = max(self._settled_before, before)

    def all_settled_for(self, message: Message, delivery: Delivery) -> bool:
        """Whether what this message repeats, if anything of this process, has come to its end."""
        return message.packet_id not in delivery.repeats or delivery.since <= self._settled_before

    def can_tell(self, message: Message, delivery: Delivery) -> bool:
        """Whether all is known that decides about this message."""
        if message.packet_id in delivery.repeats:
            return delivery.since <= self._settled_before
        return self._spooled(message, delivery) or self._ledger.loaded(delivery.session, _since(delivery))

    def knows(self, number: int, message: Message, delivery: Delivery) -> bool:
        """Whether the message came to its end before. It is known by this number too from then on."""
        if self.knows_by_itself(number, message, delivery):
            return True
        return message.packet_id not in delivery.repeats and self._enter(
            number, message, known=self._ledger.knows(message)
        )

    def knows_by_itself(self, number: int, message: Message, delivery: Delivery) -> bool:
        """The same without the ledger: what it does not know may have been stored all the same."""
        earlier = delivery.repeats.get(message.packet_id or 0)
        if earlier is None:
            return self._enter(number, message, known=self._spooled(message, delivery))
        known = delivery.since <= self._settled_before and self._redeliveries.knows(earlier, message)
        return self._enter(number, message, known=known)

    def sent_again(self, delivery: Delivery, held: Mapping[int, Message]) -> set[int]:
        """Numbers of messages of this delivery that are the very messages which came before on its connection.

        Args:
            held: what of those has not come to its end, by delivery number.
        """
        first = delivery.first
        found: set[int] = set()
        for number, earlier in delivery.resent.items():
            message = delivery.messages[number - first]
            before = delivery.messages[earlier - first] if earlier >= first else held.get(earlier)
            if before is None:
                known = self._redeliveries.knows(earlier, message)
            else:
                known = before.topic == message.topic and before.payload == message.payload
            if self._enter(number, message, known=known):
                found.add(number)
        return found

    def _enter(self, number: int, message: Message, *, known: bool) -> bool:
        if known:
            self._redeliveries.enter([number], [digest(message)])
        return known

    async def load(self, delivery: Delivery) -> None:
        """Learn what the ledger has about messages of this delivery."""
        await self._load(delivery.session, _since(delivery))


def _since(delivery: Delivery) -> int:
    """What a drain stores itself may be asked for by a later portion; a live path knows its own by number."""
    return delivery.since if delivery.replayed else 0
