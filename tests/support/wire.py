"""A small MQTT 5 client on one blocking socket, for what tests say to a broker and want to see of it."""

from __future__ import annotations

import secrets
import socket
from typing import Self

import mqtt5

QOS1 = mqtt5.QoS.AT_LEAST_ONCE
SECONDS = 10.0


class Wire:
    """A connection that speaks packets; opened by its making.

    Attributes:
        connack: the broker's answer to CONNECT.
    """

    def __init__(
        self, port: int, *, client_id: str | None = None, clean_start: bool = True, session_expiry: int = 0
    ) -> None:
        self._buffer = b""
        self._read: list[mqtt5.Packet] = []
        self._messages: list[mqtt5.PublishPacket] = []
        self._packet_id = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connect = mqtt5.ConnectPacket(
            client_id or f"wire-{secrets.token_hex(6)}",
            clean_start=clean_start,
            session_expiry_interval=session_expiry,
        )
        try:
            self.send(connect)
            self.connack = self._connack()
        except BaseException:
            self.socket.close()
            raise

    def _connack(self) -> mqtt5.ConnAckPacket:
        answer = self.receive()
        if not isinstance(answer, mqtt5.ConnAckPacket):
            raise ConnectionError(f"the broker answered CONNECT with {answer}")
        if answer.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
            raise ConnectionError(f"the broker refused us: {answer.reason_code}")
        return answer

    def send(self, packet: mqtt5.Packet) -> None:
        """Write one packet."""
        self.socket.sendall(packet.write())

    def receive(self) -> mqtt5.Packet:
        """The next packet.

        Raises:
            ConnectionError: the broker closed the connection.
            TimeoutError: nothing came in time.
        """
        while not self._read:
            self._read += self.received()
        return self._read.pop(0)

    def received(self) -> list[mqtt5.Packet]:
        """All packets of one read of the socket; may be none."""
        read = self.socket.recv(65536)
        if not read:
            raise ConnectionError("the broker closed the connection")
        self._buffer += read
        view, packets, at = memoryview(self._buffer), [], 0
        while at < len(view):
            try:
                packet, length = mqtt5.read(view[at:])
            except IndexError:
                break
            packets.append(packet)
            at += length
        self._buffer = self._buffer[at:]
        return packets

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> mqtt5.PubAckPacket:
        """Publish at QoS 1; the broker's acknowledgement."""
        self._packet_id = self._packet_id % 65_535 + 1
        self.send(mqtt5.PublishPacket(topic, payload, qos=QOS1, packet_id=self._packet_id, retain=retain))
        while True:
            match answer := self.receive():
                case mqtt5.PubAckPacket():
                    return answer
                case mqtt5.PublishPacket():
                    self._messages.append(answer)

    def next_message(self) -> mqtt5.PublishPacket:
        """The next PUBLISH, acknowledged."""
        while not self._messages:
            if isinstance(packet := self.receive(), mqtt5.PublishPacket):
                self._messages.append(packet)
        message = self._messages.pop(0)
        if message.packet_id is not None:
            self.send(mqtt5.PubAckPacket(message.packet_id))
        return message

    def close(self) -> None:
        """DISCONNECT and close."""
        with self.socket:
            self.send(mqtt5.DisconnectPacket())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def left_in_session(port: int, client_id: str, topic: str) -> list[mqtt5.PublishPacket]:
    """What the broker still holds for this client; empties the session.

    A marker is published to ``topic``, one that the session subscribes to: the broker delivers in order, so what
    comes before the marker is what was left.

    Raises:
        AssertionError: the broker keeps no session for this client.
    """
    marker = secrets.token_bytes(16)
    with Wire(port, client_id=client_id, clean_start=False, session_expiry=3600) as wire:
        assert wire.connack.session_present, f"the broker keeps no session for {client_id}"
        wire.publish(topic, marker)
        left = []
        while (message := wire.next_message()).payload != marker:
            left.append(message)
        return left
