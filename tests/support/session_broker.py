"""A broker with one subscriber and habits that mosquitto has not: packet ids reused soon, redelivery without DUP.

In threads of its own, for daemons in processes of their own. Messages are published by calling it; QoS 1 only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple, Self

from tests.support.fake_broker import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    SUBSCRIBE,
    Frame,
)
from tests.support.plan import TELEMETRY

_UNSUBSCRIBE = 10
TOPIC = TELEMETRY.format(tenant="acme", device="S-1")
DOOR = b'{"door":"closed"}'


class Habit(NamedTuple):
    """How a broker delivers.

    Attributes:
        next_id: the next packet id, of the last one and those in flight.
        dup: what is sent again has the DUP flag.
        anew: packet ids begin anew at each connection, those of messages that are sent again as well.
        window: most messages in flight.
    """

    next_id: Callable[[int, Collection[int]], int]
    dup: bool = True
    anew: bool = False
    window: int = 100


def _lowest_free(_last: int, in_flight: Collection[int]) -> int:
    return next(one for one in range(1, 65_536) if one not in in_flight)


def in_turn(last: int, _in_flight: Collection[int]) -> int:
    """1 … 65 535 and again from 1."""
    return last % 65_535 + 1


MOSQUITTO = Habit(in_turn)
HIVEMQ = Habit(lambda last, _in_flight: last % 50 + 1, window=50)
RABBITMQ = Habit(in_turn, anew=True)
AEDES = Habit(in_turn, dup=False)
LOWEST_FREE = Habit(_lowest_free)


class SessionBroker:
    """Open while the ``with`` block lasts; keeps one persistent session, of whichever client connects.

    Attributes:
        port: where clients connect to.
        deaf: nothing that the client sends is read any more: acks are lost, pings are not answered.
        subscribed: the session has its subscription.
        acked: packet ids of all PUBACKs that were read, in their order.
    """

    def __init__(self, habit: Habit) -> None:
        self._habit = habit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._in_flight: dict[int, bytes] = {}
        self._last, self._version = 0, 4
        self._client: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self.deaf = self.subscribed = False
        self.acked: list[int] = []

    def publish(self, count: int, payload: bytes = DOOR) -> None:
        """So many equal messages for the subscriber."""
        with self._lock:
            self._waiting.extend([payload] * count)
            self._send_on()

    def send_again(self, payload: bytes | None = None) -> None:
        """All that is in flight once more, on the same connection; with ``payload``, other bytes under the same ids."""
        with self._lock:
            for packet_id, sent in self._in_flight.items():
                self._put(packet_id, payload or sent, again=payload is None)

    @property
    def idle(self) -> bool:
        """All was acknowledged."""
        return not self._waiting and not self._in_flight

    def cut(self) -> None:
        """End the connection (RST)."""
        with self._lock:
            self._drop(self._client)

    def forget(self) -> None:
        """Lose the session, as a restart without persistence does."""
        with self._lock:
            self._drop(self._client)
            self._waiting.clear()
            self._in_flight.clear()
            self._last, self.subscribed = 0, False

    # one connection --------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client, client.makefile("rb") as read:
            while True:
                first = _exactly(read.read(1), 1)[0]
                length = shift = 0
                while True:
                    byte = _exactly(read.read(1), 1)[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                frame = Frame(first >> 4, first & 0x0F, _exactly(read.read(length), length))
                with self._lock:
                    if not self.deaf:
                        self._hear(client, frame)
        with self._lock:
            if self._client is client:
                self._client = None

    def _hear(self, client: socket.socket, frame: Frame) -> None:
        if frame.type == CONNECT:
            self._connect(client, frame.body[6])
        elif frame.type == SUBSCRIBE:
            self.subscribed = True
            client.sendall(self._answer(0x90, frame.body[:2], self._topics(frame.body, options=1)))
            self._send_on()
        elif frame.type == _UNSUBSCRIBE:
            codes = len(self._topics(frame.body, options=0)) if self._version == 5 else 0
            client.sendall(self._answer(0xB0, frame.body[:2], bytes(codes)))
        elif frame.type == PUBACK:
            self.acked.append(int.from_bytes(frame.body[:2], "big"))
            self._in_flight.pop(self.acked[-1], None)
            self._send_on()
        elif frame.type == PINGREQ:
            client.sendall(b"\xd0\x00")
        elif frame.type == DISCONNECT:
            self._drop(client)

    def _connect(self, client: socket.socket, version: int) -> None:
        self._drop(self._client)
        self._client, self._version = client, version
        client.sendall(self._answer(0x20, bytes([self.subscribed, 0]), b""))
        again = list(self._in_flight.items())
        if self._habit.anew:
            self._in_flight, self._last = {}, 0
            again = [(self._take_id(payload), payload) for _, payload in again]
        for packet_id, payload in again:
            self._put(packet_id, payload, again=True)
        self._send_on()

    def _send_on(self) -> None:
        while (
            self._client and self.subscribed and self._waiting and len(self._in_flight) < self._habit.window
        ):
            payload = self._waiting.popleft()
            self._put(self._take_id(payload), payload, again=False)

    def _take_id(self, payload: bytes) -> int:
        self._last = self._habit.next_id(self._last, self._in_flight)
        assert self._last not in self._in_flight
        self._in_flight[self._last] = payload
        return self._last

    def _put(self, packet_id: int, payload: bytes, *, again: bool) -> None:
        first = 0x32 | (0x08 if again and self._habit.dup else 0)
        properties = b"\0" if self._version == 5 else b""
        topic = TOPIC.encode()
        body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet_id) + properties + payload
        assert len(body) < 128
        assert self._client is not None
        with contextlib.suppress(OSError):
            self._client.sendall(bytes([first, len(body)]) + body)

    def _answer(self, first: int, head: bytes, codes: bytes) -> bytes:
        body = head + (b"\0" if self._version == 5 else b"") + codes
        return bytes([first, len(body)]) + body

    def _topics(self, body: bytes, *, options: int) -> bytes:
        """A reason code for each topic of a SUBSCRIBE or UNSUBSCRIBE."""
        at = 2 if self._version < 5 else 3 + body[2]
        codes = b""
        while at < len(body):
            at += 2 + int.from_bytes(body[at : at + 2], "big") + options
            codes += bytes([options])
        return codes

    def _drop(self, client: socket.socket | None) -> None:
        if client is None:
            return
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.shutdown(socket.SHUT_RDWR)
        if self._client is client:
            self._client = None

    # its life --------------------------------------------------------------------------------

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)


def _exactly(read: bytes, count: int) -> bytes:
    if len(read) < count:
        raise EOFError
    return read
