"""Redeliveries against a model of brokers: equal bytes, packet ids handed out in several ways, ends of every kind.

The parts are the product's (:class:`Acknowledgements`, :class:`Redeliveries`, :meth:`Sessions.believes`); the model is
the broker, the network and the pipeline between them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from typing import Any, NamedTuple, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gateway.ingest.recognition import Recognition
from gateway.messages import Delivery, Session, digest
from gateway.mqtt.acknowledgements import Acknowledgements
from gateway.sessions.redeliveries import Redeliveries
from gateway.sessions.tracking import Sessions
from gateway.writer.ledger import Ledger, positions
from tests.support.sessions import MemoryStore

T = TypeVar("T")
WINDOW = 8


class Sent(NamedTuple):
    """A PUBLISH on the wire; ``uid`` tells what no byte of it tells. Satisfies ``Message``."""

    packet_id: int
    uid: int
    duplicate: bool
    topic: str = "door"
    payload: bytes = b"closed"
    retain: bool = False
    user_properties: tuple[tuple[str, str], ...] = ()


Ids = Callable[["Broker"], int]


def in_turn(broker: Broker) -> int:
    """mosquitto, aedes."""
    return broker.last_id % 65_535 + 1


def cycling(broker: Broker) -> int:
    """HiveMQ, rumqttd: a small pool."""
    return broker.last_id % WINDOW + 1


def lowest_free(broker: Broker) -> int:
    """The first that is not in flight."""
    return next(one for one in range(1, 65_536) if one not in broker.ids_in_flight())


class Broker:
    """One session: what waits, what is in flight, in order; and a network of both directions."""

    def __init__(self, ids: Ids, *, dup: bool, new_at_each_connection: bool) -> None:
        self.next_id, self.dup, self.new_at_each_connection = ids, dup, new_at_each_connection
        self.waiting: list[int] = []
        self.in_flight: list[tuple[int, int]] = []  # packet id, uid
        self.last_id, self.present = 0, False
        self.to_gateway: list[Sent] = []
        self.acks: list[int] = []

    def ids_in_flight(self) -> set[int]:
        """Packet ids that must not be used now."""
        return {packet_id for packet_id, _ in self.in_flight}

    def connect(self) -> bool:
        """A connection: what is in flight is sent again; whether there was a session."""
        present, self.present = self.present, True
        self.to_gateway, self.acks = [], []
        if self.new_at_each_connection:
            self.last_id = 0
            again, self.in_flight = self.in_flight, []
            for _, uid in again:
                self._send(uid, duplicate=self.dup)
        else:
            self.to_gateway = [Sent(packet_id, uid, self.dup) for packet_id, uid in self.in_flight]
        return present

    def forget(self) -> None:
        """The session is lost; what was not delivered is published anew: nobody promised to keep it otherwise."""
        self.present = False
        self.waiting = [uid for _, uid in self.in_flight] + self.waiting
        self.in_flight, self.last_id = [], 0

    def send(self) -> None:
        """As much as the window allows."""
        while self.waiting and len(self.in_flight) < WINDOW:
            self._send(self.waiting.pop(0), duplicate=False)

    def _send(self, uid: int, *, duplicate: bool) -> None:
        packet_id = self.next_id(self)
        self.last_id = packet_id
        self.in_flight.append((packet_id, uid))
        self.to_gateway.append(Sent(packet_id, uid, duplicate))

    def send_again(self, first: int, count: int) -> None:
        """Some of what is in flight once more, on the same connection (NATS after ``ack_wait``, VerneMQ, EMQX)."""
        again = self.in_flight[first : first + count]
        self.to_gateway += [Sent(packet_id, uid, self.dup) for packet_id, uid in again]

    def read_acks(self, count: int) -> None:
        """Some of the acks that are on their way; one for what is not in flight is ignored."""
        for packet_id in self.acks[:count]:
            found = [one for one in self.in_flight if one[0] == packet_id]
            self.in_flight = [one for one in self.in_flight if one not in found[:1]]
        del self.acks[:count]


class Process:
    """A daemon: what it holds is gone with it, what it has stored is not."""

    def __init__(self, store: MemoryStore, ledger: list[tuple[bytes, int, bytes, bytes]]) -> None:
        self.redeliveries = Redeliveries()
        self.sessions = Sessions("gateway", [store], self.redeliveries)
        self.acks = Acknowledgements(self.sessions)
        self.ledger = ledger
        self.recognition = Recognition(
            self.redeliveries,
            Ledger("gateway", self.sessions, self.redeliveries.enter),
            spooled=lambda _message, _delivery: False,
            load=_no_load,
        )
        self.held: list[tuple[int, Sent, Delivery]] = []
        self.inherited: dict[int, tuple[int, bytes]] | None = None

    def stored_before(self, message: Sent) -> bool:
        """What the ledger of earlier processes says."""
        if self.inherited is None:
            state = run(self.sessions.look_up())
            self.inherited = positions([row[1:] for row in self.ledger if row[0] == state.session])
        position, stored = self.inherited.get(message.packet_id, (0, b""))
        return stored == digest(message) and self.sessions.believes(position)

    def is_repeated(self, number: int, message: Sent, delivery: Delivery) -> bool:
        """As :class:`gateway.ingest.recognition.Recognition` tells it."""
        earlier = delivery.repeats.get(message.packet_id)
        if earlier is not None:
            known = self.redeliveries.knows(earlier, message)
        else:
            known = message.duplicate and delivery.resumed and self.stored_before(message)
        if known:
            self.redeliveries.enter([number], [digest(message)])
        return known


async def _no_load(_session: Session, _since: int) -> None:
    """The model has a ledger of its own."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """A coroutine that never waits."""
    return asyncio.run(work)


class Redelivery(RuleBasedStateMachine):
    """Anything may happen between any two steps. ``exact``: the broker is one of which nothing comes twice either."""

    ids: Ids = staticmethod(in_turn)
    dup, new_at_each_connection, exact = True, False, True
    told_at_once = False
    again_beside_acks = True
    """It sends again on one connection while acks are on their way to it. Where ids are used again soon, the second
    ack of such a message can be taken for the next one's; MQTT 5 forbids to send again on one connection (§4.4).
    """

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(self.ids, dup=self.dup, new_at_each_connection=self.new_at_each_connection)
        self.store, self.ledger = MemoryStore(), list[tuple[bytes, int, bytes, bytes]]()
        self.table: Counter[int] = Counter()
        self.published = 0
        self.republished = False
        self.process = Process(self.store, self.ledger)
        self._connect()

    def _connect(self) -> None:
        present = self.broker.connect()
        self.process.acks.connected(present)
        if not present:
            run(self.process.sessions.save())
        self.broker.send()

    @rule(count=st.integers(1, 2 * WINDOW))
    def publish(self, count: int) -> None:
        """Somebody publishes equal messages."""
        self.broker.waiting += range(self.published, self.published + count)
        self.published += count
        self.broker.send()

    @precondition(lambda self: self.broker.to_gateway)
    @rule(count=st.integers(1, WINDOW))
    def receive(self, count: int) -> None:
        """One read of the socket."""
        self._receive(count)

    def _receive(self, count: int) -> None:
        messages = self.broker.to_gateway[:count]
        if not messages:
            return
        del self.broker.to_gateway[:count]
        delivery = self.process.acks.register(messages, [message.packet_id for message in messages])
        held = {number: one for number, one, _ in self.process.held}
        ended = self.process.recognition.sent_again(delivery, held)
        every = [(delivery.first + at, one, delivery) for at, one in enumerate(messages)]
        self.process.held += [one for one in every if one[0] not in ended]
        self._settle(ended)

    def _settle(self, numbers: Collection[int]) -> None:
        """Acks leave; those that are held as soon as it is kept how far the broker is."""
        acks = self.process.acks
        self.broker.acks += acks.settle(numbers)
        if acks.held:
            run(self.process.sessions.save())
            self.broker.acks += acks.settle(())

    @precondition(
        lambda self: self.broker.in_flight and (self.again_beside_acks or not self.broker.acks),
    )
    @rule(first=st.integers(0, WINDOW - 1), count=st.integers(1, WINDOW))
    def send_again(self, first: int, count: int) -> None:
        """The broker has waited long enough for acks."""
        self.broker.send_again(first, count)

    @precondition(lambda self: self.process.held)
    @rule(count=st.integers(1, WINDOW), dies=st.booleans())
    def store_some(self, count: int, dies: bool) -> None:
        """A batch is committed; its acks leave, unless the process dies before."""
        numbers = self._store(count)
        if dies:
            self._die()
        else:
            self._settle(numbers)

    def _store(self, count: int) -> list[int]:
        """Commit what came first, with rows of the ledger; the delivery numbers."""
        process = self.process
        some, process.held = process.held[:count], process.held[count:]
        for number, message, delivery in some:
            if process.is_repeated(number, message, delivery):
                continue
            self.table[message.uid] += 1
            if not delivery.session.id:
                run(process.sessions.look_up())
            packed, position = (
                message.packet_id.to_bytes(2, "little"),
                delivery.session.position(delivery.turn),
            )
            self.ledger.append((delivery.session.id, position, packed, digest(message)))
            process.redeliveries.enter([number], [digest(message)])
            process.sessions.note()
        return [number for number, *_ in some]

    @precondition(lambda self: self.broker.acks)
    @rule(count=st.integers(1, WINDOW))
    def acks_are_read(self, count: int) -> None:
        """Some of them; with the last the ping behind it, whose answer is kept before the broker sends on.

        A kill in the moment in which a broker is first seen to use an id again is beyond the promise.
        """
        everything = self.told_at_once or count >= len(self.broker.acks)
        self.broker.read_acks(len(self.broker.acks) if everything else count)
        if everything:
            self._confirm()
        self.broker.send()

    def _confirm(self) -> None:
        self._receive(len(self.broker.to_gateway))  # the broker sent it before the answer
        self.process.acks.pinged()
        self.process.acks.answered()
        run(self.process.sessions.save())

    @rule()
    def cut(self) -> None:
        """The connection is lost, with all that is on its way. What is held is stored before its redeliveries come."""
        self.process.acks.lost()
        self._store(len(self.process.held))
        self._connect()

    @rule()
    def kill(self) -> None:
        """Kill -9."""
        self._die()

    def _die(self) -> None:
        self.process = Process(self.store, self.ledger)
        self._connect()

    @rule()
    def goodbye(self) -> None:
        """A graceful stop: all that was taken is stored, all acks are read."""
        self._settle(self._store(len(self.process.held)))
        self.broker.read_acks(len(self.broker.acks))
        self.process.acks.confirm(self.process.acks.acknowledged)
        run(self.process.sessions.save())
        self._die()

    @rule()
    def lose_session(self) -> None:
        """The broker restarts without persistence; what it had not delivered for good is published again."""
        self.process.acks.lost()
        self._store(len(self.process.held))
        self.broker.forget()
        self.republished = True
        self._connect()

    def teardown(self) -> None:
        """In the end everything is there; once, where that can be."""
        while self.broker.to_gateway or self.process.held or self.broker.acks:
            self._receive(WINDOW)
            self._settle(self._store(len(self.process.held)))
            self.broker.read_acks(len(self.broker.acks))
            self._confirm()
            self.broker.send()
        assert [uid for uid in range(self.published) if not self.table[uid]] == [], "lost"
        if self.exact and not self.republished:
            assert [uid for uid, count in self.table.items() if count > 1] == [], "stored twice"


class InTurn(Redelivery):
    """mosquitto."""


class WithoutDup(Redelivery):
    """aedes: in turn, redelivered without DUP; a process that died knows nothing again."""

    dup, exact = False, False


class Cycling(Redelivery):
    """HiveMQ, rumqttd."""

    ids, exact, again_beside_acks = staticmethod(cycling), False, False


class LowestFree(Redelivery):
    """The worst."""

    ids, exact, again_beside_acks = staticmethod(lowest_free), False, False


class NewAtEachConnection(Redelivery):
    """RabbitMQ, Moquette, mochi.

    The first connection that is ever cut after acks were read and before the ping behind them is answered, looks like
    one of mosquitto whose acks were lost.
    """

    told_at_once, again_beside_acks = True, False
    new_at_each_connection, exact = True, False


EXAMPLES = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestInTurn, TestWithoutDup, TestCycling = InTurn.TestCase, WithoutDup.TestCase, Cycling.TestCase
TestLowestFree, TestNewAtEachConnection = LowestFree.TestCase, NewAtEachConnection.TestCase
for _case in (TestInTurn, TestWithoutDup, TestCycling, TestLowestFree, TestNewAtEachConnection):
    _case.settings = EXAMPLES
del _case


def test_an_id_that_comes_round_beside_what_is_sent_again() -> None:
    """Acknowledged, sent again under the id whose turn it is, and the next message under it: that one was dropped."""
    history = Cycling()
    history.publish(WINDOW + 2)
    history.receive(1)
    history.goodbye()
    history.send_again(first=0, count=1)
    history.teardown()
