"""Messages between their receipt and the moment at which the broker is known to have read their acknowledgements.

Over the connections of one process: which session they belong to, how far its packet ids have come, and which of them
repeat what an earlier connection brought.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from gateway.clock import now_us
from gateway.messages import NO_REPEATS, PACKET_IDS, Delivery, Message, Session
from gateway.mqtt.doubts import DoubtfulRedeliveries
from gateway.mqtt.packet_ids import PacketIds, are_consecutive, is_ahead
from gateway.mqtt.source import SessionTracker
from gateway.mqtt.window import NO_ID, Outstanding, Window
from gateway.observability import events

_redelivered = operator.attrgetter("duplicate")


class Acknowledgements:
    """Numbers messages, and knows which of their acks have left and which were read.

    Args:
        first: the first of the numbers.
    """

    def __init__(self, sessions: SessionTracker, first: int = 0) -> None:
        self._sessions = sessions
        self._window, self._ids = Window(first), PacketIds()
        self._session: Session | None = None
        self._resumed = False
        self._since: int | None = None
        self._begun = False
        self._outstanding: dict[int, Outstanding] = {}
        self._unsent = 0  # of those that are outstanding
        self._last_repeat = -1
        self._told = False
        self._doubtful = DoubtfulRedeliveries(sessions)
        self._crossed = False  # on this connection the broker sent again what we had acknowledged
        self._marks: deque[int] = deque()

    # a connection begins and ends --------------------------------------------------------------

    def connected(self, session_present: bool) -> None:
        """Messages of a connection may follow."""
        self._resumed, self._since, self._crossed = session_present, None, False
        self._begun = False
        self._marks.clear()
        self._ids.connected()
        if session_present:
            self._session = self._session or self._sessions.inherited
        else:
            self._session, self._ids = self._sessions.begin(), PacketIds(in_turn=self._ids.in_turn)
            self._outstanding = {}
            self._doubtful.dismiss()
            self._sessions.confirmed(0, number=self._window.next, before=None)

    def lost(self) -> None:
        """The connection is gone: the broker may deliver again what it has no ack of."""
        self._outstanding.update(self._window.restart())
        self._unsent = sum(not one.sent for one in self._outstanding.values())
        self._doubtful.lost(self._outstanding.values())

    # messages come -----------------------------------------------------------------------------

    def register(self, messages: Sequence[Message], packet_ids: Sequence[int]) -> Delivery:
        """All messages of one socket read, numbered."""
        resent = NO_REPEATS
        ids = list(filter(None, packet_ids)) if NO_ID in packet_ids else packet_ids
        consecutive = are_consecutive(ids)
        first = self._window.next
        goes_on = self._window.goes_on_with(ids, consecutive=consecutive)
        if goes_on and (self._ids.in_turn or not any(map(_redelivered, messages))):
            self._window.register(packet_ids)
        else:
            resent, packet_ids = self._sent_again(messages, packet_ids)
            ids = list(filter(None, packet_ids))
            consecutive = are_consecutive(ids)
        if self._since is None:
            self._since = first
        repeats = self._repeats(messages, packet_ids, first) if self._outstanding else NO_REPEATS
        self._observe(messages, packet_ids, ids, repeats, consecutive=consecutive)
        session = self._session
        assert session is not None
        if ids and not self._begun:
            self._begun = True
            if self._resumed:
                self._sessions.resumed(ids[0], number=first)
        return Delivery(
            messages,
            first,
            now_us(),
            self._resumed and session.inherited,
            self._since,
            self._ids.turn,
            session=session,
            repeats=repeats,
            resent=resent,
        )

    def _sent_again(
        self, messages: Sequence[Message], packet_ids: Sequence[int]
    ) -> tuple[Mapping[int, int], Sequence[int]]:
        """Register messages of which some may come for the second time on this connection.

        An id that we have not acknowledged cannot be a new message's, unless its turn has come again. One whose ack has
        left can, once the broker has read it (MQTT 5 §4.3.2): then DUP decides, where ids are handed out in turn. What
        is sent again has no ack of its own: a second one could be taken for that of the message that gets the id next.

        Returns:
            Delivery number to that of the message it may repeat, and the packet ids with ``NO_ID`` in place of those.
        """
        first, redelivered = self._window.next, any(map(_redelivered, messages))
        here = self._window.found(packet_ids, sent=redelivered)
        resent, new, last = dict[int, int](), list(packet_ids), self._window.last
        for at, (message, packet_id) in enumerate(zip(messages, packet_ids, strict=True)):
            one = here.get(packet_id)
            certain = one is not None and self._is_certain(one, message)
            if one is not None and certain and not self._goes_on(packet_id, last):
                resent[first + at], new[at] = one.number, NO_ID
            elif packet_id != NO_ID:
                here[packet_id] = Outstanding(first + at, sent=False)
                last = packet_id
        self._window.register(new, resent=resent)
        return resent, new

    def _goes_on(self, packet_id: int, last: int) -> bool:
        """Whether an id is handed out in turn after this one."""
        return packet_id == last % PACKET_IDS + 1 or (self._ids.in_turn and is_ahead(packet_id, last))

    def _is_certain(self, one: Outstanding, message: Message) -> bool:
        """Whether what comes under the id of an outstanding message of this connection must be the same message."""
        if self._ids.in_turn:
            return not one.sent or message.duplicate
        # The broker may have read the ack and freed the id: from here on what is unacknowledged proves nothing either.
        self._crossed |= one.sent and message.duplicate
        return not (one.sent or self._crossed)

    def _repeats(
        self, messages: Sequence[Message], packet_ids: Sequence[int], first: int
    ) -> Mapping[int, int]:
        """Which of these may be outstanding messages, by packet id: the number under which they came before.

        A message whose ack has left may also be another one: the broker has read the ack and uses the id again. Not
        where ids are handed out in turn, nor before all have come again whose acks have not left: those are younger,
        and messages come again in their order (MQTT 5 §4.6). Where another one comes before those, what is sent again
        has got other ids (RabbitMQ), and nothing can be told.
        """
        found: dict[int, int] = {}
        previous = self._ids.previous
        for number, (message, packet_id) in enumerate(zip(messages, packet_ids, strict=True), first):
            if packet_id == NO_ID:
                continue
            # Before it is believed: an id behind its predecessor is what tells of a small pool of ids.
            self._ids.check(packet_id, previous)
            previous = packet_id
            one = self._outstanding.pop(packet_id, None)
            if one is None:
                if self._unsent:
                    self._cannot_tell()
                    break
                self._doubtful.other_id(message, certain=message.duplicate and self._ids.is_behind(packet_id))
                continue
            if not one.sent:
                self._unsent -= 1
            elif not (self._ids.in_turn or self._unsent):
                self._doubtful.same_id(one, message)
                continue
            self._doubtful.dismiss()
            found[packet_id], self._last_repeat = one.number, number
        return found

    def _cannot_tell(self) -> None:
        events.mqtt_redelivers_under_other_ids(messages=self._unsent, first=not self._told)
        self._told = True
        self._doubtful.dismiss()
        self._outstanding, self._unsent = {}, 0
        self._ids.in_turn = False

    def _observe(
        self,
        messages: Sequence[Message],
        packet_ids: Sequence[int],
        ids: Sequence[int],
        repeats: Mapping[int, int],
        *,
        consecutive: bool,
    ) -> None:
        """See how far packet ids have come; ``ids`` are those that are no ``NO_ID``."""
        assert self._session is not None
        if self._resumed and (repeats or any(map(_redelivered, messages))):
            for message, packet_id in zip(messages, packet_ids, strict=True):
                if packet_id:
                    # Of what an earlier process received this one knows nothing but the flag.
                    resent = packet_id in repeats or (message.duplicate and self._session.inherited)
                    self._ids.observe_one(packet_id, fresh=not resent)
        else:
            self._ids.observe(ids, consecutive=consecutive)
        if not self._ids.in_turn:
            self._sessions.out_of_turn()
        if not self._session.first and ids:
            self._session.first = ids[0]

    # acks leave, and are read ------------------------------------------------------------------

    def settle(self, numbers: Iterable[int], *, leaving: bool = False) -> list[int]:
        """The packet ids whose acks may leave now; see :meth:`gateway.mqtt.window.Window.settle`.

        Args:
            leaving: a goodbye follows, by whose reading all is known: nothing is held.
        """
        return self._window.settle(numbers, None if leaving else self._sessions.leave_before)

    @property
    def held(self) -> bool:
        """Whether acks wait until it is kept what the broker has read; see :attr:`SessionTracker.leave_before`."""
        return self._window.held

    @property
    def unconfirmed(self) -> bool:
        """Whether acks have left of which it is not known that they were read."""
        return self._window.acknowledged > self._window.confirmed

    def pinged(self) -> None:
        """A ping follows the acks that have left."""
        self._marks.append(self._window.acknowledged)

    def answered(self) -> None:
        """The broker has read what went before the oldest unanswered ping."""
        if self._marks:
            self.confirm(self._marks.popleft())

    @property
    def acknowledged(self) -> int:
        """The acks of all messages before this number have left."""
        return self._window.acknowledged

    def confirm(self, before: int) -> None:
        """The broker has read the acks of all messages before this number."""
        packet_id = self._window.confirm(before)
        if packet_id == NO_ID:
            return
        if self._since is not None and before > max(self._since, self._last_repeat + 1):
            # What could come again has come, but for what the broker needs not send: it had read the acks.
            self._outstanding = {key: one for key, one in self._outstanding.items() if not one.sent}
        everything = not self._outstanding and before > self._last_repeat
        turn = self._ids.read = self._ids.turn_of(packet_id, self._window.newer(before))
        self._sessions.confirmed(turn, number=before, before=before if everything else None)
