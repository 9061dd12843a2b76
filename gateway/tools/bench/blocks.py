"""Packets of a load, encoded before it begins: what changes from round to round is patched in, column by column.

All packets of a block have one width, so that the n-th byte of all of them is one slice with a step. A message
costs some 30 ns: the load is not what is measured.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence

import mqtt5

from gateway.tools.bench import shape
from gateway.tools.bench.shape import Shape

_BLOCK_IDS = 60_000
"""Packet ids are 16 bit; those of blocks take turns below this, those of single packets above."""
_SINGLE_IDS = 65_535 - _BLOCK_IDS
_BLOCK_BYTES = 2**17
_BLOCK_MESSAGES = 1000
_STAMP = b"1000000000000"
"""Stands for a time in ms since the Unix epoch."""
_CHANGING = b"0.000"
"""Stands for the first metric, whose decimals count the rounds."""


class Block:
    """One message of each of these devices.

    Args:
        prefix: of the topics; the serial number follows.
    """

    def __init__(self, prefix: str, serials: Sequence[str], kind: Shape, chance: random.Random) -> None:
        packets = [_publish(prefix + serial, _payload(kind, chance), 1) for serial in serials]
        first = packets[0]
        self.size, self.width = len(packets), len(first)
        self._bytes = bytearray().join(packets)
        self._id_at = 1 + _length_bytes(first) + 2 + len((prefix + serials[0]).encode())
        self._stamp_at = first.index(_STAMP) if kind.timestamps else None
        self._count_at = first.index(_CHANGING) + 2

    def patch(self, round_number: int, stamp_ms: int, first_number: int) -> memoryview:
        """The packets as messages of this round, numbered from ``first_number``; valid until the next call."""
        numbers = range(first_number, first_number + self.size)
        ids = array("H", [number % _BLOCK_IDS + 1 for number in numbers])
        ids.byteswap()
        raw = ids.tobytes()
        self._column(self._id_at, raw[0::2])
        self._column(self._id_at + 1, raw[1::2])
        self._digits(self._count_at, f"{round_number % 1000:03}")
        if self._stamp_at is not None:
            self._digits(self._stamp_at, str(stamp_ms))
        return memoryview(self._bytes)

    def _digits(self, at: int, digits: str) -> None:
        for place, digit in enumerate(digits.encode(), at):
            self._column(place, bytes([digit]) * self.size)

    def _column(self, at: int, values: bytes) -> None:
        self._bytes[at :: self.width] = values


class Blocks:
    """The messages of a load one after another, in pieces that are ready for a socket.

    Args:
        start_ms: time of the first round; each further one is 1 ms later, so every reading has a key of its own.
    """

    def __init__(self, prefix: str, kind: Shape, *, start_ms: int, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - a load, no secret
        self._blocks = [Block(prefix, serials, kind, chance) for serials in _portions(kind)]
        self._start_ms = start_ms
        self._round = self._place = self._at = self._number = 0
        self._view = memoryview(b"")

    @property
    def stamp_ms(self) -> int:
        """Time of the round that is on."""
        return self._start_ms + self._round

    def take(self, most: int) -> tuple[memoryview, int]:
        """Up to ``most`` packets, and how many they are; valid until the next call."""
        block = self._blocks[self._place]
        if self._at == 0:
            self._view = block.patch(self._round, self.stamp_ms, self._number)
        count = min(most, block.size - self._at)
        piece = self._view[self._at * block.width : (self._at + count) * block.width]
        self._advance(count, block.size)
        return piece, count

    def _advance(self, count: int, size: int) -> None:
        self._number += count
        self._at += count
        if self._at == size:
            self._at = 0
            self._place = (self._place + 1) % len(self._blocks)
            self._round += self._place == 0


def single(topic: str, payload: bytes, number: int) -> bytes:
    """A packet beside the blocks; ``number`` counts such packets."""
    return _publish(topic, payload, _BLOCK_IDS + 1 + number % _SINGLE_IDS)


def _publish(topic: str, payload: bytes, packet_id: int) -> bytes:
    return mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id).write()


def _portions(kind: Shape) -> Iterator[list[str]]:
    """The serial numbers, by block: a block is small enough for one write."""
    size = max(1, min(_BLOCK_MESSAGES, _BLOCK_BYTES // (80 + 22 * kind.metrics)))
    for start in range(0, kind.devices, size):
        yield [shape.serial(number) for number in range(start, min(start + size, kind.devices))]


def _payload(kind: Shape, chance: random.Random) -> bytes:
    """All payloads of a shape have one length."""
    values = [f'"{shape.metric(0)}":{_CHANGING.decode()}']
    values += [f'"{shape.metric(n)}":{10 + 89 * chance.random():.2f}' for n in range(1, kind.metrics)]
    stamp = f'"ts":{_STAMP.decode()},' if kind.timestamps else ""
    metrics = ",".join(values)
    return f"{{{stamp}{metrics}}}".encode() if kind.flat else f'{{{stamp}"metrics":{{{metrics}}}}}'.encode()


def _length_bytes(packet: bytes) -> int:
    """How many bytes the remaining length takes (MQTT 5 §2.1.4)."""
    return next(count for count, byte in enumerate(packet[1:5], 1) if byte < 0x80)
