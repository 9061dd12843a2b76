"""A broker that says what a script tells it to, and a proxy that records what real ones say on the wire.

Both run in the test's own event loop. The fake broker is for what no real broker would say; promises are tested on
real ones, through the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

import mqtt5

from tests.support.waiting import eventually_async

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    1,
    2,
    3,
    4,
    8,
    9,
    12,
    13,
    14,
)


class Frame(NamedTuple):
    """A packet of any version of MQTT: type and flags of its first byte, and what follows its length."""

    type: int
    flags: int
    body: bytes


def packets_of(stream: bytes) -> tuple[list[bytes], bytes]:
    """The complete packets in a recorded stream, and what has begun after them."""
    found: list[bytes] = []
    at = 0
    while True:
        length, shift, start = 0, 0, at + 1
        while start < len(stream):
            length |= (stream[start] & 0x7F) << shift
            shift += 7
            start += 1
            if stream[start - 1] < 0x80:
                break
        if start + length > len(stream) or start < at + 2:
            return found, stream[at:]
        found.append(stream[at : start + length])
        at = start + length


def frames(stream: bytes) -> list[Frame]:
    """The complete packets in a recorded stream, taken apart."""
    return [_frame(packet) for packet in packets_of(stream)[0]]


def _frame(packet: bytes) -> Frame:
    body = next(at for at, byte in enumerate(packet) if at and byte < 0x80) + 1
    return Frame(packet[0] >> 4, packet[0] & 0x0F, packet[body:])


def publish_packet_id(frame: Frame) -> int | None:
    """The packet id of a PUBLISH; None at QoS 0."""
    if not frame.flags & 0x06:
        return None
    topic = int.from_bytes(frame.body[:2], "big")
    return int.from_bytes(frame.body[2 + topic : 4 + topic], "big")


# a proxy that records ---------------------------------------------------------------------


class Recording:
    """One connection through the proxy: all bytes of either direction."""

    def __init__(self) -> None:
        self.sent = bytearray()
        """By the client."""
        self.received = bytearray()
        """By the client."""

    def count(self, kind: int) -> int:
        """Packets of this type that the client sent."""
        return sum(frame.type == kind for frame in frames(bytes(self.sent)))

    def acked(self) -> list[int]:
        """Packet ids of the client's PUBACKs, in their order on the wire."""
        return [
            int.from_bytes(frame.body[:2], "big")
            for frame in frames(bytes(self.sent))
            if frame.type == PUBACK
        ]

    def delivered(self) -> list[int]:
        """Packet ids of the broker's PUBLISHes, in their order on the wire."""
        published = [frame for frame in frames(bytes(self.received)) if frame.type == PUBLISH]
        return [packet_id for frame in published if (packet_id := publish_packet_id(frame)) is not None]


class BrokerProxy:
    """A TCP proxy in front of a broker on loopback.

    Attributes:
        port: where clients connect to.
        recordings: one for each connection, the oldest first.
        silent: True: connections stay, but nothing that the broker says is passed on any more.
    """

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.silent = False
        self.recordings: list[Recording] = []

    def cut(self) -> None:
        """Break all connections (RST)."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recording = Recording()
        self.recordings.append(recording)
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:
            writer.transport.abort()
            return
        both = (
            self._pump(reader, upstream[1], recording.sent, lambda: False),
            self._pump(upstream[0], writer, recording.received, lambda: self.silent),
        )
        self._writers |= {writer, upstream[1]}
        try:
            await asyncio.gather(*both)
        finally:
            for end in (writer, upstream[1]):
                self._writers.discard(end)
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        record: bytearray,
        silent: Callable[[], bool],
    ) -> None:
        with contextlib.suppress(OSError):
            while read := await reader.read(65536):
                record += read
                if not silent():
                    writer.write(read)
                    await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxy_to(broker_port: int) -> AsyncIterator[BrokerProxy]:
    """A proxy in front of a broker on loopback, on a port of its own."""
    proxy = BrokerProxy(broker_port)
    async with _serving(proxy._serve) as port:
        proxy.port = port
        yield proxy
        proxy.cut()


# a broker with a script -------------------------------------------------------------------


class Peer:
    """One client's connection, as the script sees it.

    Attributes:
        number: 0 for the first connection to this broker.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self._reader, self._writer = reader, writer
        self.number = number
        self.said: list[Frame] = []
        """All packets that the client sent so far, as far as they were awaited."""

    async def hear(self) -> Frame | None:
        """The client's next packet; None: it closed the connection."""
        try:
            first = (await self._reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            frame = Frame(first >> 4, first & 0x0F, await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.said.append(frame)
        return frame

    async def until(self, kind: int) -> Frame:
        """The client's next packet of this type; pings before it are answered."""
        while (frame := await self.hear()) is not None:
            if frame.type == PINGREQ:
                self.say(b"\xd0\x00")
            if frame.type == kind:
                return frame
        raise ClientGoneError

    async def until_closed(self) -> list[Frame]:
        """Wait until the client says goodbye, or is gone without one; all that it said."""
        while (frame := await self.hear()) is not None and frame.type != DISCONNECT:
            if frame.type == PINGREQ:
                self.say(b"\xd0\x00")
        return self.said

    def say(self, *packets: mqtt5.Packet | bytes) -> None:
        """Send packets, or any bytes, in one write."""
        self._writer.write(b"".join(p if isinstance(p, bytes) else p.write() for p in packets))

    def reset(self) -> None:
        """End the connection by RST."""
        peer = self._writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def say_slowly(self, stream: bytes, piece: int = 1) -> None:
        """Send bytes in small pieces, each read on its own by the client."""
        for at in range(0, len(stream), piece):
            self._writer.write(stream[at : at + piece])
            await self._writer.drain()
            await asyncio.sleep(0)

    async def accept(self, connack: mqtt5.ConnAckPacket | None = None) -> Frame:
        """Accept CONNECT and grant SUBSCRIBE in MQTT 5; the SUBSCRIBE."""
        await self.until(CONNECT)
        self.say(connack or mqtt5.ConnAckPacket())
        subscribe = await self.until(SUBSCRIBE)
        self.say(granted(subscribe))
        return subscribe

    async def accept_3(self, *, granted_qos: Sequence[int] = (1,)) -> Frame:
        """Accept CONNECT and answer SUBSCRIBE in MQTT 3.1.1."""
        await self.until(CONNECT)
        self.say(b"\x20\x02\x00\x00")
        subscribe = await self.until(SUBSCRIBE)
        self.say(bytes([0x90, 2 + len(granted_qos)]) + subscribe.body[:2] + bytes(granted_qos))
        return subscribe


def is_mqtt_5(connect: Frame) -> bool:
    """Whether this CONNECT asks for MQTT 5."""
    return connect.body[6] == 5


def granted(subscribe: Frame, *codes: mqtt5.SubAckReasonCode) -> mqtt5.SubAckPacket:
    """The SUBACK of a SUBSCRIBE in MQTT 5; without codes one subscription is granted at QoS 1."""
    packet_id = int.from_bytes(subscribe.body[:2], "big")
    return mqtt5.SubAckPacket(packet_id, list(codes) or [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE])


class ClientGoneError(Exception):
    """The client left in the middle of the script, as it may when the test ends."""


Script = Callable[[Peer], Awaitable[None]]


class FakeBroker:
    """Runs the script for each connection; the connection is closed at the script's end.

    Attributes:
        port: where clients connect to.
        peers: one for each connection, the oldest first.
        errors: what scripts raised; looked at when the broker is closed.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self.port = 0
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []

    async def connections(self, count: int, timeout: float = 10) -> None:
        """Wait until so many connections were made."""
        await eventually_async(lambda: len(self.peers) >= count, timeout=timeout, what=f"{count} connections")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(self.peers))
        self.peers.append(peer)
        try:
            await self._script(peer)
        except ClientGoneError:
            pass
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            self.errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def fake_broker(script: Script) -> AsyncIterator[FakeBroker]:
    """A broker on a port of its own that acts by the script; what the script raised is raised here."""
    broker = FakeBroker(script)
    async with _serving(broker._serve) as port:
        broker.port = port
        yield broker
    if broker.errors:
        raise broker.errors[0]


@contextlib.asynccontextmanager
async def _serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A TCP server on loopback; its connections end with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
