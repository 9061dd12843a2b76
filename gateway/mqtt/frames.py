"""Cut MQTT 5 packets out of a byte stream, however the stream was cut on its way. Sans-I/O."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from mqtt5 import DisconnectReasonCode, Packet, PublishPacket, read

from gateway.mqtt.window import NO_ID

_QOS_2 = 0x04


class BrokenStreamError(Exception):
    """The broker does not keep to MQTT; nothing after this can be read.

    Attributes:
        code: what DISCONNECT should tell the broker.
        standing: the broker would do it again; somebody must mend something.
    """

    def __init__(self, code: DisconnectReasonCode, text: str, *, standing: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.standing = standing


class Cut(NamedTuple):
    """What one read of the socket completed; ``others`` are all but PUBLISH."""

    messages: list[PublishPacket]
    packet_ids: list[int]
    others: list[Packet]


class Frames:
    """The stream of one connection.

    Args:
        largest: bytes of the largest packet accepted.
    """

    __slots__ = ("_largest", "_need", "_tail")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._tail = bytearray()
        self._need = 0  # bytes the packet begun in _tail has, as far as its header tells

    def cut(self, received: bytes) -> Cut:
        """All packets that are complete with these bytes, in order.

        Raises:
            BrokenStreamError: they are no MQTT 5, or too large.
        """
        tail = self._tail
        if tail:
            if len(tail) + len(received) < self._need:
                # Growing in place keeps a 10 MB packet in small reads linear
                tail += received
                return Cut([], [], [])
            received = b"".join((tail, received))
            self._tail = bytearray()
        view = memoryview(received)
        found = Cut([], [], [])
        rest = self._read_all(view, found)
        if rest:
            self._keep(rest)
        return found

    def _read_all(self, view: memoryview, found: Cut) -> memoryview:
        """The bytes after the last complete packet. The hot loop of the source: some 0.4 µs a message."""
        add, add_id, largest = found.messages.append, found.packet_ids.append, self._largest
        try:
            while True:
                packet, size = read(view)
                if type(packet) is PublishPacket:
                    if size > largest or view[0] & _QOS_2:
                        _refuse(size, largest)
                    add(packet)
                    add_id(packet.packet_id or NO_ID)
                else:
                    found.others.append(packet)
                view = view[size:]
        except IndexError:
            return view  # the rest is still on its way
        except BrokenStreamError:
            raise
        except ValueError as error:
            raise _malformed(error) from error
        except BaseException as error:
            # mqtt5 0.8.0 panics on text that is not UTF-8, and a panic is no Exception
            if type(error).__name__ != "PanicException":
                raise
            raise _malformed("text that is not UTF-8") from error

    def _keep(self, rest: memoryview) -> None:
        self._need = _packet_bytes(rest)
        if self._need > self._largest:
            _refuse(self._need, self._largest)
        if 0 < self._need <= len(rest):
            raise _malformed("its parts are longer than the whole")
        self._tail = bytearray(rest)


def _packet_bytes(view: memoryview) -> int:
    """Bytes of the packet that begins here (MQTT 5 §2.1.4); 0: its header is not complete."""
    remaining = shift = 0
    for at, byte in enumerate(view[1:5], start=2):
        remaining |= (byte & 0x7F) << shift
        if byte < 0x80:
            return at + remaining
        shift += 7
    return 0


def _refuse(size: int, largest: int) -> NoReturn:
    if size > largest:
        raise BrokenStreamError(
            DisconnectReasonCode.PACKET_TOO_LARGE,
            f"a packet of {size} bytes; it was told to stay within mqtt.max_packet_bytes = {largest}",
            standing=True,
        )
    raise BrokenStreamError(
        DisconnectReasonCode.QOS_NOT_SUPPORTED,
        "a message at QoS 2, to which we never subscribe: the session under our client id holds someone "
        "else's subscriptions; choose another mqtt.client_id",
        standing=True,
    )


def _malformed(what: object) -> BrokenStreamError:
    return BrokenStreamError(DisconnectReasonCode.MALFORMED_PACKET, f"a malformed packet: {what}")
