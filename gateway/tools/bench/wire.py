"""MQTT 5 on one blocking socket: what loads and sessions need."""

from __future__ import annotations

import secrets
import select
import socket
import ssl
import time
from typing import Self, TypeVar

import mqtt5

from gateway.errors import UsageError
from gateway.mqtt import packets, reasons, tls
from gateway.mqtt.connection import ConnectionLostError, broker_name
from gateway.settings import MqttSettings

P = TypeVar("P", bound=mqtt5.Packet)

_READ_BYTES = 2**16


class BenchConnection:
    """A connection, opened by its making.

    Args:
        client_id: a session of this name goes on; by default a new one.
        session_seconds: how long the broker keeps the session after the connection.

    Attributes:
        receive_max: most messages that the broker lets us leave unacknowledged.

    Raises:
        GatewayError: no broker, or it refuses us.
    """

    def __init__(self, mqtt: MqttSettings, client_id: str = "", *, session_seconds: int = 0) -> None:
        named = client_id or f"gateway-bench-{secrets.token_hex(6)}"
        self._mqtt = mqtt.model_copy(update={"client_id": named, "session_expiry": session_seconds})
        self._rest = b""
        self._socket = _dial(mqtt)
        try:
            self.send(packets.connect_packet(self._mqtt))
            self.receive_max = self._accepted()
        except BaseException:
            self._socket.close()
            raise

    def _accepted(self) -> int:
        connack = self._expect(mqtt5.ConnAckPacket)
        if connack.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
            reason = packets.reason_of(connack.reason_code, connack)
            raise reasons.refused_connection(broker_name(self._mqtt), reason)
        return connack.receive_max

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe at QoS 1."""
        topics = [mqtt5.TopicFilter(topic_filter, max_qos=mqtt5.QoS.AT_LEAST_ONCE)]
        self.send(mqtt5.SubscribePacket(1, topics).write())
        (code,) = self._expect(mqtt5.SubAckPacket).reason_codes
        if code != mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE:
            raise UsageError(f"{broker_name(self._mqtt)} does not grant {topic_filter} at QoS 1: {code.name}")

    def send(self, encoded: bytes | bytearray | memoryview) -> None:
        """Write all of it."""
        try:
            self._socket.sendall(encoded)
        except OSError as error:
            raise tls.explain(error, self._mqtt) from error

    def received(self, patience: float) -> bytes:
        """What has come, or comes within ``patience`` seconds; may be nothing."""
        if self._rest:  # what came together with an answer that was waited for
            rest, self._rest = self._rest, b""
            return rest
        return self._read(patience)

    def _read(self, patience: float) -> bytes:
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        if not pending and not select.select([self._socket], [], [], patience)[0]:
            return b""
        try:
            read = self._socket.recv(_READ_BYTES)
        except OSError as error:
            raise tls.explain(error, self._mqtt) from error
        if not read:
            raise ConnectionLostError(f"{broker_name(self._mqtt)} closed the connection")
        self._acknowledge_at_once()
        return read

    def _acknowledge_at_once(self) -> None:
        """On TCP's level: a broker without TCP_NODELAY would wait 40 ms for it before its next few bytes (tcp(7))."""
        if self._mqtt.unix_socket is None:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def close(self) -> None:
        """DISCONNECT and close."""
        with self._socket:
            self.send(mqtt5.DisconnectPacket().write())

    def _expect(self, kind: type[P]) -> P:
        """The next packet of this kind; what comes before it is passed over."""
        deadline = time.monotonic() + self._mqtt.connect_timeout
        while time.monotonic() < deadline:
            try:
                packet, size = mqtt5.read(memoryview(self._rest))
            except IndexError:
                self._rest += self._read(0.1)
                continue
            self._rest = self._rest[size:]
            if isinstance(packet, kind):
                return packet
        raise ConnectionLostError(f"{broker_name(self._mqtt)} does not answer")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _dial(mqtt: MqttSettings) -> socket.socket:
    try:
        dialled = _connect(mqtt)
        if mqtt.tls is None:
            return dialled
        context = tls.make_context(mqtt.tls, ssl.SSLContext)
        return context.wrap_socket(dialled, server_hostname=tls.server_name(mqtt))
    except OSError as error:
        raise tls.explain(error, mqtt) from error


def _connect(mqtt: MqttSettings) -> socket.socket:
    if mqtt.unix_socket is None:
        dialled = socket.create_connection((mqtt.host, mqtt.port), timeout=mqtt.connect_timeout)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return dialled
    local = socket.socket(socket.AF_UNIX)
    try:
        local.settimeout(mqtt.connect_timeout)
        local.connect(str(mqtt.unix_socket))
    except BaseException:
        local.close()
        raise
    return local
