"""A plain consumer beside the gateway: paho, QoS 1, a persistent session; it tells what a broker itself loses."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.waiting import eventually

SECONDS = 15.0
MQTT5 = 5
_PATIENCE = 3.0
CLOSED = "connection closed"
_WINDOW = 10
"""HiveMQ takes no more of a publisher at once, and paho does not ask."""
Login = tuple[str, str] | None


class ReferenceDelivery(NamedTuple):
    """One PUBLISH as it came.

    Attributes:
        connection: which of the consumer's connections, from 1.
        acknowledged: whether one of the same payload had been acknowledged before.
    """

    connection: int
    packet_id: int
    dup: bool
    payload: bytes
    acknowledged: bool


class Reference:
    """Consumes all below a topic filter and keeps what came; one session, any number of connections.

    Attributes:
        deliveries: all that came, copies included.
        holding: nothing is acknowledged for now.
        resumed: whether the broker had the session at the last connection.
    """

    def __init__(self, port: int, topic_filter: str, *, version: int, login: Login = None) -> None:
        self._login = login
        self._port, self._filter, self._version = port, topic_filter, version
        self._client_id = f"reference-{secrets.token_hex(4)}"
        self._client: paho.Client | None = None
        self._held: list[paho.MQTTMessage] = []
        self._acknowledged: set[bytes] = set()
        self._subscribed = threading.Event()
        self._connections = self._acknowledgements = 0
        self.deliveries: list[ReferenceDelivery] = []
        self.holding = self.resumed = False

    def connect(self) -> None:
        """Connect and subscribe, as clients do at every connection; again and again, until the broker lets it."""
        eventually(self._try, timeout=SECONDS, every=0.2, what="the broker takes the reference consumer")

    def _try(self) -> bool:
        self._connections += 1
        self._held.clear()
        self._subscribed.clear()
        client = self._client = client_of(self._version, self._client_id, self._login, persistent=True)
        client.manual_ack_set(True)
        client.on_connect, client.on_message = self._on_connect, self._on_message
        client.on_subscribe = lambda *_: self._subscribed.set()
        connect(client, self._port, persistent=True)
        if self._subscribed.wait(_PATIENCE):
            return True
        self._loop_ends(client, disconnect=False)
        return False

    def acknowledge(self) -> None:
        """All that was held, and from now on at once."""
        self.holding = False
        while self._held:
            self._acknowledge(self._held.pop(0))

    def drop(self) -> None:
        """The connection ends with RST."""
        client = self._open
        if isinstance(connection := client.socket(), socket.socket):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._loop_ends(client, disconnect=False)

    def leave(self) -> None:
        """The connection ends with DISCONNECT."""
        self._loop_ends(self._open, disconnect=True)

    def close(self) -> None:
        """However it is."""
        if self._client is not None:
            with contextlib.suppress(OSError):
                self.leave()

    def lost(self, published: int, *, equal: bool = False) -> int:
        """How many of so many messages never came so that they could be acknowledged.

        Args:
            equal: all have the same bytes; else each has its own.
        """
        taken = self._acknowledgements if equal else len(self._acknowledged)
        return max(published - taken, 0)

    def again(self) -> int:
        """How many came that had been acknowledged before, by payload."""
        return sum(delivery.acknowledged for delivery in self.deliveries)

    def on_connection(self, number: int) -> list[ReferenceDelivery]:
        """What came on this connection of ours; -1: the last one."""
        wanted = number if number > 0 else self._connections + 1 + number
        return [delivery for delivery in self.deliveries if delivery.connection == wanted]

    @property
    def held(self) -> int:
        """How many wait for their acknowledgement."""
        return len(self._held)

    @property
    def _open(self) -> paho.Client:
        assert self._client is not None, "the reference consumer is not connected"
        return self._client

    def _on_connect(self, client: paho.Client, _userdata: Any, flags: Any, code: Any, *_: Any) -> None:
        if code.is_failure:
            return
        self.resumed = flags.session_present
        if self._version == MQTT5:
            client.subscribe(self._filter, options=SubscribeOptions(qos=1))
        else:
            client.subscribe(self._filter, qos=1)

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        payload = bytes(message.payload)
        known = payload in self._acknowledged
        self.deliveries.append(ReferenceDelivery(self._connections, message.mid, message.dup, payload, known))
        if self.holding:
            self._held.append(message)
        else:
            self._acknowledge(message)

    def _acknowledge(self, message: paho.MQTTMessage) -> None:
        self._acknowledged.add(bytes(message.payload))
        self._acknowledgements += 1
        self._open.ack(message.mid, message.qos)

    def _loop_ends(self, client: paho.Client, *, disconnect: bool) -> None:
        end(client, disconnect=disconnect)
        self._client = None


def client_of(version: int, client_id: str, login: Login = None, *, persistent: bool = False) -> paho.Client:
    """A paho client that does not connect again by itself."""
    clean = None if version == MQTT5 else not persistent
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=clean,
        protocol=paho.MQTTv5 if version == MQTT5 else paho.MQTTv311,
        reconnect_on_failure=False,
    )
    if login is not None:
        client.username_pw_set(*login)
    return client


def connect(client: paho.Client, port: int, *, persistent: bool = False) -> None:
    """Connect, with a thread that reads."""
    options: dict[str, Any] = {}
    if client.protocol == paho.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600 if persistent else 0
        options = {"clean_start": not persistent, "properties": properties}
    client.connect("127.0.0.1", port, keepalive=30, **options)
    client.loop_start()


def end(client: paho.Client, *, disconnect: bool) -> None:
    """End the connection and its thread."""
    if disconnect:
        client.disconnect()
    elif isinstance(connection := client.socket(), socket.socket):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    client.loop_stop()
    if (connection := client.socket()) is not None:
        connection.close()


def answer_to(port: int, login: Login, *, version: int) -> str:
    """What a broker says to a CONNECT with these credentials: the reason of its CONNACK, or that it said nothing."""
    client = client_of(version, f"probe-{secrets.token_hex(4)}", login)
    said: list[str] = []
    client.on_connect = lambda _client, _userdata, _flags, code, _properties: said.append(str(code))
    client.on_disconnect = lambda *_: said.append(CLOSED)
    connect(client, port)
    try:
        eventually(lambda: said, timeout=5)
    except AssertionError:
        return "no answer"
    finally:
        end(client, disconnect=False)
    return said[0]


def publish(port: int, messages: Sequence[tuple[str, bytes]], *, version: int, login: Login = None) -> None:
    """Publish all at QoS 1, and wait until all are acknowledged."""
    client = client_of(version, f"publisher-{secrets.token_hex(4)}", login)
    client.max_inflight_messages_set(_WINDOW)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    connect(client, port)
    try:
        assert connected.wait(SECONDS), "the broker does not answer the publisher"
        sent = [client.publish(topic, payload, qos=1) for topic, payload in messages]
        what = "the broker has acknowledged all that was published"
        eventually(lambda: all(one.is_published() for one in sent), timeout=SECONDS, what=what)
    finally:
        end(client, disconnect=True)
