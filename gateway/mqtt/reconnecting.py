"""The source: one connection after another, for ever; what outlives a connection is kept here.

Delivery numbers, the order of acks, back-off, health. What a connection is made of, the source does not know.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from gateway.backoff import Backoff
from gateway.errors import GatewayError
from gateway.messages import Message
from gateway.mqtt.acknowledgements import Acknowledgements
from gateway.mqtt.connection import (
    Connection,
    ConnectionLostError,
    Receiver,
    Refusal,
    RefusedError,
    Subscription,
    UnsupportedVersionError,
    broker_name,
    parts,
    subscribe_to_all,
)
from gateway.mqtt.source import DeliveryReceiver, SessionTracker
from gateway.observability import events
from gateway.observability.health import Component
from gateway.settings import MqttSettings

T = TypeVar("T")
Connect = Callable[[MqttSettings, Receiver], Connection]
_CONFIRM_SECONDS = 0.1
"""Between two pings that find out which acks the broker has read."""
_HELD_SECONDS = 0.005
"""Between two looks whether held acks may leave, see :attr:`gateway.mqtt.source.SessionTracker.leave_before`."""
_FIRST_SECONDS = 3.0
"""So long is an answer awaited to a first CONNECT whose version the broker may not know: some say nothing."""
_KEEP_SECONDS = 2.0
"""So long does SUBSCRIBE wait until a new session, or new filters, are known durably."""
_DOUBT_AFTER = 5
"""Attempts in a row that fail, after an accepted one, before the other version is tried."""


class _ClosedError(Exception):
    """The source was closed while it waited for something."""


class ReconnectingSource:
    """See :class:`gateway.mqtt.source.Source`.

    Args:
        sessions: is told what becomes of the session.
        connect: makes a connection; not dialled yet.
        fallback: tried by turns with the other, whatever a broker answers to what it does not understand, until an
            attempt is accepted; what was accepted is kept.
        first: the first delivery number.
    """

    def __init__(
        self,
        mqtt: MqttSettings,
        subscriptions: Sequence[Subscription],
        component: Component,
        sessions: SessionTracker,
        *,
        connect: Connect,
        fallback: Connect | None = None,
        first: int = 0,
    ) -> None:
        self._mqtt, self._subscriptions = mqtt, subscriptions
        self._sink: DeliveryReceiver
        self._component, self._sessions = component, sessions
        self._connect, self._other, self._fallback = connect, fallback, fallback
        self._first_error: GatewayError | None = None
        self._unanswered = 0  # attempts in a row that a broker did not accept
        self._ever_accepted = False
        self._broker = broker_name(mqtt)
        self._backoff = Backoff(mqtt.reconnect_min, mqtt.reconnect_max)
        self._connection: Connection | None = None
        self._resumed = False
        self._confirming: asyncio.TimerHandle | None = None
        self._held: asyncio.TimerHandle | None = None
        self._confirmed_at = 0.0
        self._acks = Acknowledgements(sessions, first)
        self._dropped: asyncio.Future[GatewayError] | None = None
        self._up_since = math.inf
        self._waited = 0.0
        self._connected_before = False
        self._stopped = False
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._closed = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()

    # what the path asks --------------------------------------------------------------------

    async def run(self, sink: DeliveryReceiver) -> None:
        """Until closed: connect, subscribe, yield; wait; again."""
        self._sink = sink
        self._finished.clear()
        try:
            while not self._closed.is_set():
                await self._attempt()
        except _ClosedError:
            pass
        finally:
            self._component.stopped()
            events.mqtt_closed(broker=self._broker)
            self._finished.set()

    def settle(self, numbers: Iterable[int]) -> None:
        """Ack what may leave now."""
        packet_ids = self._acks.settle(numbers)
        if packet_ids and self._connection is not None:
            self._connection.acknowledge(packet_ids)
            self._find_out()
        if self._acks.held and self._held is None:
            self._held = asyncio.get_running_loop().call_later(_HELD_SECONDS, self._settle_held)

    def _settle_held(self) -> None:
        self._held = None
        self.settle(())

    def pause(self) -> None:
        """Stop reading. A connection lost meanwhile is made again at the resume: it could yield nothing."""
        self._may_read.clear()
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read again."""
        if self._stopped:
            return
        self._may_read.set()
        if self._connection is not None:
            self._connection.resume()

    def reconnect(self, reason: str) -> None:
        """Drop the connection and make a new one; the broker then delivers again what is not acknowledged."""
        if self._dropped is not None and not self._dropped.done():
            self._dropped.set_result(ConnectionLostError(reason))

    def stop(self) -> None:
        """Yield nothing from now on. What is already read and not yielded is never acknowledged."""
        self._stopped = True
        self.pause()

    async def close(self) -> None:
        """End :meth:`run`, which sends the acks that may leave and says goodbye."""
        self._closed.set()
        await self._finished.wait()

    # what the connection calls ---------------------------------------------------------------

    def connected(self, session_present: bool) -> None:
        """Messages of this connection may follow."""
        self._resumed = session_present
        if self._connect is self._fallback and self._first_error is not None:
            events.mqtt_fell_back(broker=self._broker, error=str(self._first_error))
        self._first_error, self._unanswered, self._ever_accepted = None, 0, True
        self._acks.connected(session_present)
        self._up_since = time.monotonic()

    def take(self, messages: Sequence[Message], packet_ids: Sequence[int]) -> None:
        """Number them and hand them over."""
        if not self._stopped:
            self._sink.take(self._acks.register(messages, packet_ids))

    def pinged(self) -> None:
        """A ping follows the acks that have left."""
        self._acks.pinged()

    def answered(self) -> None:
        """The broker has read them."""
        self._acks.answered()
        self._find_out()

    def idle(self) -> None:
        """The socket has nothing more for now."""
        self._sink.idle()

    # one connection after another -----------------------------------------------------------

    async def _attempt(self) -> None:
        """One connection from dialling to its end, and the wait after it."""
        await self._unless_closed(self._may_read.wait())
        self._up_since = math.inf
        error = await self._live()
        if self._closed.is_set():
            return
        if self._other is not None and self._version_is_in_doubt():
            self._connect, self._other = self._other, self._connect
            if self._first_error is None:
                self._first_error = error
                return
            # A broker that speaks the first version says best what is wrong in it.
            first, self._first_error = self._first_error, None
            told = isinstance(first, RefusedError) and not isinstance(first, UnsupportedVersionError)
            error = first if told else error
        await self._wait_after(error)

    def _version_is_in_doubt(self) -> bool:
        """Whether the next attempt is made in the other version: a broker was there and did not accept this one.

        One that was accepted is not given up for a restart: the broker may have been replaced by another if it goes on.
        """
        return self._unanswered >= (_DOUBT_AFTER if self._ever_accepted else 1)

    def _asking(self) -> MqttSettings:
        """A broker that may not understand us is not waited for as long as one that did."""
        if self._other is None or self._first_error is not None or self._ever_accepted:
            return self._mqtt
        timeout = min(self._mqtt.connect_timeout, _FIRST_SECONDS)
        return self._mqtt.model_copy(update={"connect_timeout": timeout})

    async def _wait_after(self, error: GatewayError) -> None:
        if isinstance(error, RefusedError):
            wait = self._mqtt.refused_retry
            self._component.failed(str(error))
        else:
            # A broker that accepts us and drops us at once must not be asked ever faster
            if time.monotonic() - self._up_since > 2 * self._waited:
                self._backoff.reset()
            wait = self._backoff.next()
            self._component.waiting(str(error))
        self._waited = wait
        events.mqtt_disconnected(broker=self._broker, error=str(error), retry_in=wait)
        await self._unless_closed(asyncio.sleep(wait))

    async def _live(self) -> GatewayError:
        """One connection, from dialling to its end; why it ended."""
        try:
            connection = self._connection = self._connect(self._asking(), self)
        except RefusedError as error:
            return error
        try:
            await self._unless_closed(connection.open())
            self._sessions.subscribing([subscription.filter for subscription in self._subscriptions])
            await self._unless_closed(self._sessions.kept(_KEEP_SECONDS))
            refusals = await self._unless_closed(self._subscribe(connection, self._subscriptions))
            self._report(connection, refusals)
            return await self._unless_closed(self._stay(connection, refusals))
        except (ConnectionLostError, RefusedError) as error:
            return error
        except _ClosedError:
            raise
        except Exception as error:  # a defect of ours must cost a connection, not the daemon
            events.defect(stage="mqtt", error=repr(error), count=1)
            return ConnectionLostError(f"{self._broker}: a defect of the gateway, please report: {error!r}")
        finally:
            self._connection = None
            if connection.dialled and self._up_since == math.inf:
                self._unanswered += 1
            self._stop_finding_out()
            if self._closed.is_set() and (last := self._acks.settle((), leaving=True)):
                connection.acknowledge(last)
            acknowledged = self._acks.acknowledged
            await connection.close()
            if connection.goodbye_read:
                self._acks.confirm(acknowledged)
            self._acks.lost()

    async def _stay(self, connection: Connection, refusals: list[Refusal]) -> GatewayError:
        """Until the connection is lost; refused subscriptions are asked for again, slowly."""
        lost = asyncio.ensure_future(connection.lost())
        stale = asyncio.ensure_future(self._sessions.stale())
        dropped = self._dropped = asyncio.get_running_loop().create_future()
        try:
            while True:
                patience = self._mqtt.refused_retry if refusals else None
                await asyncio.wait(
                    {lost, dropped, stale}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if lost.done() or dropped.done():
                    return lost.result() if lost.done() else dropped.result()
                if stale.done():
                    await self._unsubscribe(connection, stale.result())
                    stale = asyncio.ensure_future(self._sessions.stale())
                elif refusals:
                    refusals = await self._subscribe(connection, [one.subscription for one in refusals])
                    self._judge(connection, refusals)
        finally:
            lost.cancel()
            stale.cancel()

    async def _unless_closed(self, step: Coroutine[Any, Any, T]) -> T:
        """The step's result; cut short when the source is closed."""
        task = asyncio.create_task(step)
        closed = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _ClosedError
            return task.result()
        finally:
            closed.cancel()
            task.cancel()
            await asyncio.gather(task, closed, return_exceptions=True)

    # what the broker has read -----------------------------------------------------------------

    def _find_out(self) -> None:
        """Ping soon after acks have left: the answer tells that they were read."""
        if self._confirming is not None or not self._acks.unconfirmed:
            return
        loop = asyncio.get_running_loop()
        due = 0.0 if self._acks.held else self._confirmed_at + _CONFIRM_SECONDS
        self._confirming = loop.call_at(max(due, loop.time()), self._ping)

    def _ping(self) -> None:
        self._confirming, self._confirmed_at = None, asyncio.get_running_loop().time()
        if self._connection is not None:
            self._connection.ping()

    def _stop_finding_out(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
            self._confirming = None

    # subscriptions ---------------------------------------------------------------------------

    async def _subscribe(self, connection: Connection, asked: Sequence[Subscription]) -> list[Refusal]:
        """All at every connection, resumed or not: the broker may know less than it says."""
        refusals = await subscribe_to_all(connection, asked)
        for refusal in refusals:
            events.mqtt_subscription_refused(topic=refusal.subscription.filter, error=refusal.reason)
        return refusals

    async def _unsubscribe(self, connection: Connection, stale: Sequence[str]) -> None:
        """End what an earlier configuration subscribed to, after the new: rather twice than never."""
        for part in parts(stale):
            refused = await connection.unsubscribe(part)
            events.mqtt_unsubscribed(topics=part, refused=refused)
            self._sessions.unsubscribed(part)

    def _report(self, connection: Connection, refusals: list[Refusal]) -> None:
        events.mqtt_connected(
            broker=self._broker,
            client_id=self._mqtt.client_id,
            session_present=self._resumed,
            protocol=connection.protocol,
            first=not self._connected_before,
        )
        self._connected_before = True
        for shortcoming in connection.shortcomings:
            events.mqtt_promise_at_risk(broker=self._broker, problem=shortcoming)
        self._judge(connection, refusals)

    def _judge(self, connection: Connection, refusals: list[Refusal]) -> None:
        """One refused stream, or a broker that cannot do what the promise needs, leaves us unready."""
        problems = list(connection.shortcomings)
        if refusals:
            topics = "; ".join(f"{refusal.subscription.filter}: {refusal.reason}" for refusal in refusals)
            problems.append(f"refuses subscriptions: {topics}")
        if problems:
            self._component.failed(f"{self._broker} {'; '.join(problems)}")
        else:
            self._component.ready(f"connected to {self._broker}")
