"""MQTT 3.1.1 over TCP, TLS, WebSocket or a unix socket, by aiomqtt: for brokers that speak nothing newer.

aiomqtt 2 acknowledges on its own and drops messages when its queue is full (its issue 345), forgets the DUP flag
and cannot stop reading. So it dials, subscribes and disconnects here, and the rest is done on the paho client in
it: acks by hand, messages straight from paho's callback, the socket read when we want.

MQTT 3.1.1 has no receive maximum and no maximum packet size: what is in flight is bounded by the broker's own
window (``max_inflight_messages`` in mosquitto), and packets by the broker's own limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import aiomqtt
from paho.mqtt.client import PUBACK, PUBCOMP, ConnectFlags
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.errors import GatewayError
from gateway.messages import Message
from gateway.mqtt import paho_errors, reasons, tls
from gateway.mqtt.at_qos_2 import AtQos2, pubcomp_packet
from gateway.mqtt.connection import (
    LAST_ACKS_SECONDS,
    NOT_SHARED,
    ConnectionLostError,
    Phase,
    Receiver,
    Refusal,
    RefusedError,
    Subscription,
    broker_name,
    closed_by,
)
from gateway.mqtt.dial import dial
from gateway.mqtt.idle import IdleWatch
from gateway.mqtt.keepalive import Keepalive
from gateway.mqtt.paho_client import make_client
from gateway.mqtt.paho_messages import QOS_1, QOS_2, message_in
from gateway.mqtt.paho_sockets import NamedContext, Sockets
from gateway.mqtt.replies import Ended, answer, either
from gateway.mqtt.window import NO_ID
from gateway.settings import MqttSettings

T = TypeVar("T")
_SHORTEST = 0.1
_UNACCEPTABLE_VERSION = 1
"""MQTT 3.1.1 §3.2.2.3."""
_CLOSE_TIMEOUT = 2.0
_RECEIVED_AT_ONCE = 2**16
_READ_AT_ONCE, _BYTES_AT_ONCE = 500, 2**18
"""Packets, and bytes of messages, read before the event loop gets its turn."""


class V311Connection:
    """One MQTT 3.1.1 connection; see :class:`gateway.mqtt.connection.Connection`."""

    protocol = "3.1.1"
    dialled = False
    goodbye_read = False
    shortcomings: Sequence[str] = ()  # an MQTT 3.1.1 CONNACK tells none

    def __init__(self, mqtt: MqttSettings, receiver: Receiver) -> None:
        self._mqtt, self._receiver = mqtt, receiver
        self._broker = broker_name(mqtt)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._idle = IdleWatch(receiver.idle)
        self._context = tls.make_context(mqtt.tls, NamedContext) if mqtt.tls else None
        self._client = make_client(mqtt, self._context)
        self._paho: Paho = self._client._client  # noqa: SLF001  aiomqtt issue 345
        self._sockets = Sockets(self._paho, self._context, mqtt.connect_timeout)
        self._take_over()
        self._opening: asyncio.Task[Any] | None = None
        self._opened = asyncio.Event()
        self._phase, self._filters = Phase.CONNECTING, list[str]()
        self._ended: Ended = self._loop.create_future()
        self._leaving = False
        self._pings = 0  # unanswered
        self._answered: asyncio.Future[None] = self._loop.create_future()
        self._keepalive: Keepalive | None = None
        self._messages: list[Message] = []
        self._packet_ids: list[int] = []
        self._paused = False
        self._at_qos_2 = AtQos2(mqtt.client_id)
        self._broken, self._read_bytes = "", 0
        self._deliveries = 0

    # the connection's life -------------------------------------------------------------

    async def open(self) -> None:
        """Dial; in a thread (paho blocks) the handshakes; CONNECT, and wait for CONNACK. All share one deadline."""
        timeout = self._mqtt.connect_timeout
        deadline = self._loop.time() + timeout
        try:
            if self._mqtt.unix_socket is None:
                async with asyncio.timeout(timeout):
                    self._sockets.dialled(await dial(self._mqtt.host, self._mqtt.port))
        except (OSError, UnicodeError) as error:
            raise tls.explain(error, self._mqtt, dialling=True) from error
        self._client.timeout = max(deadline - self._loop.time(), _SHORTEST)
        self._opening = asyncio.create_task(self._client.__aenter__())
        await asyncio.wait([self._opening, self._ended], return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            raise self._ended.result()
        try:
            self._opening.result()
        except (aiomqtt.MqttError, UnicodeError) as error:
            raise paho_errors.explain(error.__context__ or error, self._mqtt) from error

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[Refusal]:
        """SUBSCRIBE, and wait for SUBACK, as long as messages come or reading is paused.

        Raises:
            RefusedError: a shared subscription. It is one in MQTT 5 only; to many a broker of 3.1.1 it is an ordinary
                filter, which no topic ever matches.
        """
        if shared := [one.filter for one in subscriptions if one.filter.startswith("$share/")]:
            raise RefusedError(f"MQTT 3.1.1 has no shared subscriptions ({shared[0]}): {NOT_SHARED}")
        self._phase, self._filters = Phase.SUBSCRIBING, [one.filter for one in subscriptions]
        asked = [(subscription.filter, subscription.qos) for subscription in subscriptions]
        answers = await self._ask("SUBSCRIBE", self._client.subscribe(asked, timeout=math.inf))
        self._phase = Phase.SUBSCRIBED
        return reasons.refusals(subscriptions, [paho_errors.reason(code) for code in answers])

    async def unsubscribe(self, filters: Sequence[str]) -> list[str]:
        """UNSUBSCRIBE, and wait for UNSUBACK likewise; MQTT 3.1.1 has no way to refuse it."""
        await self._ask("UNSUBSCRIBE", self._client.unsubscribe(list(filters), timeout=math.inf))
        return []

    async def _ask(self, name: str, question: Coroutine[Any, Any, T]) -> T:
        asking = asyncio.create_task(question)
        try:
            return await answer(
                asking, self._ended, timeout=self._mqtt.connect_timeout, progress=self._progress
            )
        except TimeoutError:
            raise ConnectionLostError(f"{self._broker} does not answer our {name}") from None
        except aiomqtt.MqttError as error:
            raise ConnectionLostError(f"{self._broker}: {error}") from error
        finally:
            asking.cancel()

    def _progress(self) -> object:
        return object() if self._paused else self._deliveries

    async def lost(self) -> GatewayError:
        """Wait for the end."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Flush, DISCONNECT, close; a peer that takes nothing is cut off."""
        if self._opening is None:
            return
        await self._end_opening(self._opening)
        if not self._ended.done():
            self._leaving = True
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._acks_are_read()
                    self.goodbye_read = not self._ended.done()
                    await self._client.__aexit__(None, None, None)
            self._end(ConnectionLostError("closed by us"))
        self._sockets.close()

    async def _acks_are_read(self) -> None:
        """Wait until the broker has answered a last ping: it has read our acks then.

        paho closes the socket right after DISCONNECT; with messages unread that is an RST, which may overtake
        the acks.
        """
        self.ping()
        self.resume()
        await either(self._answered, self._ended)

    async def _end_opening(self, opening: asyncio.Task[Any]) -> None:
        """A thread that dials cannot be interrupted, only waited for: connect_timeout bounds it."""
        if not opening.done():
            opened_socket = asyncio.create_task(self._opened.wait())
            await asyncio.wait([opening, opened_socket], return_when=asyncio.FIRST_COMPLETED)
            opened_socket.cancel()
        opened = opening.done() and not opening.cancelled() and opening.exception() is None
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        if not opened:
            self._end(ConnectionLostError("closed by us"))

    def _end(self, error: GatewayError) -> None:
        """The connection is over; only the first reason counts."""
        if self._ended.done():
            return
        self._ended.set_result(error)
        if self._keepalive is not None:
            self._keepalive.stop()
        self._loop.call_soon(self._sockets.close)  # not at once: we may be in one of paho's callbacks

    # what the source asks ----------------------------------------------------------------

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """One write, where paho's ``ack`` would be one an ack; a PUBACK is the same in MQTT 5."""
        if not self._ended.done():
            acks = self._at_qos_2.acknowledgements(packet_ids)
            self._paho._packet_queue(PUBACK, acks, mid=0, qos=0)  # noqa: SLF001

    def pause(self) -> None:
        """Stop reading. Before CONNACK it takes effect with CONNACK."""
        self._paused = True
        if self._keepalive is not None and (socket := self._paho.socket()) is not None:
            self._loop.remove_reader(socket.fileno())
            self._keepalive.suspend()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if not self._broken and self._keepalive is not None and (socket := self._paho.socket()) is not None:
            self._keepalive.resume()
            self._loop.add_reader(socket.fileno(), self._read)
            self._loop.call_soon(self._read)  # TLS may hold decrypted bytes that no poll reports

    # reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read what is there: one delivery."""
        if self._ended.done() or self._broken or self._paused:
            return
        self._idle.read()
        if self._keepalive is not None:
            self._keepalive.heard()
        try:
            self._read_packets()
        except Exception as error:
            self._broken = str(error)
        if self._leaving:
            self._messages.clear()
        elif self._messages:
            # What came before the end is taken, as when it comes by a read of its own.
            messages, packet_ids = self._messages, self._packet_ids
            self._messages, self._packet_ids = [], []
            self._deliveries += 1
            self._receiver.take(messages, packet_ids)
            self._idle.arm()
        if self._broken:
            self._break(self._broken)

    def _read_packets(self) -> None:
        """All that is there; not by paho's ``loop_read``, which closes before our last acks could leave."""
        self._read_bytes = 0
        for _ in range(_READ_AT_ONCE):
            if self._read_bytes > _BYTES_AT_ONCE or self._paho.socket() is None or self._ended.done():
                break
            code = self._paho._packet_read()  # noqa: SLF001
            if code == MQTTErrorCode.MQTT_ERR_AGAIN:
                return
            if code == MQTTErrorCode.MQTT_ERR_PROTOCOL:
                self._broken = "no packet of MQTT 3.1.1"
                return
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._paho._loop_rc_handle(code)  # noqa: SLF001
                return
        self._loop.call_soon(self._read)

    def _break(self, problem: str) -> None:
        """Nothing after this can be read. What came before is acknowledged, or it would come, and break, again."""
        error = ConnectionLostError(f"{self._broker} sent a malformed packet: {problem}")
        if (socket := self._paho.socket()) is not None:
            self._loop.remove_reader(socket.fileno())
        if self._deliveries:
            self._loop.call_later(LAST_ACKS_SECONDS, self._end, error)
        else:
            self._end(error)

    def _on_publish(self) -> int:
        """One PUBLISH as paho has read it. Paho's own way ends in an exception where a part of it is malformed."""
        packet = self._paho._in_packet  # noqa: SLF001
        first, body = packet["command"], packet["packet"]
        if self._keepalive is None or (first & QOS_2 and first & QOS_1):
            what = "PUBLISH before CONNACK" if self._keepalive is None else "a malformed packet: QoS 3"
            self._end(ConnectionLostError(f"{self._broker} sent {what}"))
            return 0
        self._read_bytes += len(body)
        message = message_in(first, body, self._mqtt.max_packet_bytes, self._mqtt.max_topic_bytes)
        if first & QOS_2 and message.packet_id:
            self._at_qos_2.came(message.topic, message.packet_id)
        self._messages.append(message)
        self._packet_ids.append(message.packet_id or NO_ID)
        return 0

    def _on_pubrel(self) -> int:
        """Paho leaves the answer out where acks are sent by hand."""
        packet_id = int.from_bytes(self._paho._in_packet["packet"][:2])  # noqa: SLF001
        return self._paho._packet_queue(PUBCOMP, pubcomp_packet(packet_id), mid=0, qos=0)  # noqa: SLF001

    # what paho calls -----------------------------------------------------------------------

    def _take_over(self) -> None:
        """Replace aiomqtt's callbacks where they would lose what we need."""
        paho = self._paho
        paho.connect_timeout = self._mqtt.connect_timeout
        receive = paho._sock_recv  # noqa: SLF001
        # Paho asks for all of a packet at once, and room would be made for what is only announced
        paho._sock_recv = lambda bufsize: receive(min(bufsize, _RECEIVED_AT_ONCE))  # type: ignore[method-assign]  # noqa: SLF001
        self._handle_connack = paho._handle_connack  # noqa: SLF001
        paho._handle_connack = self._on_connack  # type: ignore[method-assign,assignment]  # noqa: SLF001
        paho.manual_ack_set(True)
        paho._handle_pingresp = self._on_ping_answered  # type: ignore[method-assign,assignment]  # noqa: SLF001
        paho.on_connect, paho.on_disconnect = self._on_connect, self._on_disconnect
        paho._handle_publish = self._on_publish  # type: ignore[method-assign,assignment]  # noqa: SLF001
        paho._handle_pubrel = self._on_pubrel  # type: ignore[method-assign,assignment]  # noqa: SLF001
        paho.on_socket_open = self._on_socket_open
        paho.on_socket_register_write = self._on_write_wanted

    def _on_connack(self) -> int:
        """CONNACK. Paho answers "unacceptable protocol version" by dialling again on its own, in MQTT 3.1."""
        body = self._paho._in_packet["packet"]  # noqa: SLF001
        if len(body) > 1 and body[1] == _UNACCEPTABLE_VERSION:
            unsupported = reasons.BrokerReason(0x84, "unsupported protocol version")
            self._end(reasons.refused_connection(self._broker, unsupported))
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._handle_connack()

    def _on_connect(
        self,
        client: Paho,
        userdata: Any,
        flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._end(reasons.refused_connection(self._broker, paho_errors.reason(code)))
            return
        self._keepalive = Keepalive(self._mqtt.keepalive, self.ping, self._on_silence)
        if self._paused:
            self.pause()
        self._receiver.connected(flags.session_present)
        self._client._on_connect(client, userdata, flags, code, properties)  # noqa: SLF001

    def _on_disconnect(self, *told: Any) -> None:
        if self._leaving:
            self._client._on_disconnect(*told)  # noqa: SLF001
        elif self._sockets.failure is not None:
            self._end(tls.explain(self._sockets.failure, self._mqtt))
        else:
            self._end(closed_by(self._broker, self._phase, self._filters))

    def _on_socket_open(self, _client: Paho, _userdata: Any, socket: Any) -> None:
        """Called in the thread that dials."""
        self._loop.call_soon_threadsafe(self._start_reading, socket.fileno())

    def _start_reading(self, descriptor: int) -> None:
        self.dialled = True
        self._opened.set()
        self._loop.add_reader(descriptor, self._read)

    def _on_write_wanted(self, _client: Paho, _userdata: Any, socket: Any) -> None:
        """Called in the thread that dials, and in ours: there it must not be late, or it outlives the socket."""
        if threading.get_ident() == self._thread:
            self._loop.add_writer(socket.fileno(), self._write)
        else:
            self._loop.call_soon_threadsafe(self._loop.add_writer, socket.fileno(), self._write)

    def _write(self) -> None:
        try:
            self._paho.loop_write()
        except OSError as error:
            self._end(tls.explain(error, self._mqtt))

    # keepalive -------------------------------------------------------------------------------

    def ping(self) -> None:
        """PINGREQ, behind all acks so far."""
        if self._ended.done():
            return
        self._receiver.pinged()
        # paho's own keepalive takes our pauses for the broker's silence: its loop_misc is never called
        self._paho._send_pingreq()  # noqa: SLF001
        self._pings += 1

    def _on_ping_answered(self) -> int:
        self._pings -= 1
        self._receiver.answered()
        if self._leaving and self._pings == 0 and not self._answered.done():
            self._answered.set_result(None)
        return 0

    def _on_silence(self) -> None:
        self._end(ConnectionLostError(f"{self._broker} is silent: it does not answer our pings"))
