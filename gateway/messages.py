"""The values that travel the path. Imports only the vocabulary.

Nothing here is built per message on the fast path but :class:`Reading`: a message is the MQTT library's own
packet object (it satisfies :class:`Message`), and a delivery holds all messages of one socket read.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from gateway.outcomes import DataType, Reason, UnknownFields, Violations


class Message(Protocol):
    """One MQTT PUBLISH received. Read only; ``mqtt5.PublishPacket`` is one."""

    @property
    def topic(self) -> str:
        """Topic as received."""

    @property
    def payload(self) -> bytes:
        """Payload, the original bytes."""

    @property
    def packet_id(self) -> int | None:
        """Packet identifier; None at QoS 0."""

    @property
    def retain(self) -> bool:
        """Whether the broker replays a retained message."""

    @property
    def duplicate(self) -> bool:
        """The DUP flag: the broker believes that it sent this packet id before."""

    @property
    def user_properties(self) -> Sequence[tuple[str, str]]:
        """MQTT 5 user properties; empty on 3.1.1."""


DIGEST_BYTES = 8
PACKET_IDS = 65_535
"""Packet identifiers of a session (MQTT 5 §2.2.1): as many messages can be unacknowledged."""


def digest(message: Message) -> bytes:
    """Eight bytes of topic and payload: by it a message is known again, beside its packet id."""
    named = b"\0".join((message.topic.encode(), message.payload))
    return hashlib.blake2b(named, digest_size=DIGEST_BYTES).digest()


class Session:
    """A session at the broker. Packet ids, and what was noted under them, mean something in their own session only.

    Attributes:
        id: 16 bytes; empty while nothing is known of a session that an earlier process began.
        inherited: an earlier process began it.
    """

    __slots__ = ("_base", "_last", "first", "id", "inherited")

    def __init__(self, id: bytes = b"", *, inherited: bool = False) -> None:  # noqa: A002 - it is the id
        self.id, self.inherited = id, inherited
        self.first = self._last = 0
        self._base: int | None = None

    def go_on(self, last: int) -> None:
        """Positions go on from this one, which an earlier process has left."""
        self._last = last

    def position(self, turn: int) -> int:
        """How far packet ids had come in the session, over processes; see :class:`Delivery` for ``turn``.

        A process counts from the first packet id that it received: which round of them that was, is told by what is
        nearest to the last position known.
        """
        if self._base is None:
            self._base = max(0, round((self._last - self.first) / PACKET_IDS) * PACKET_IDS)
        return self._base + turn


NO_SESSION = Session()
"""Of messages that no broker will deliver again."""
NO_REPEATS: Mapping[int, int] = {}


class Delivery(msgspec.Struct, gc=False):
    """All messages of one socket read, in the order in which they came.

    Attributes:
        messages: at least one.
        first: delivery number of ``messages[0]``; the others follow without gaps. Delivery numbers count all
            messages a source ever yielded, over reconnects; a message is settled by its number.
        received_us: receive time, µs since the Unix epoch.
        resumed: the broker kept a session of before this process, so DUP may speak of what that one received.
        since: delivery number of the first message of this connection.
        turn: how far the broker's packet ids have come, in this process, up to the last of this delivery. A redelivery
            keeps its id, and brings it no further.
        replayed: they have been on the path before, and ``received_us`` is of then. The readings of a message without a
            time of their own are dated from it on, a microsecond apart; those of other spooled messages are elsewhere,
            those of dead letters take the next free time.
        session: to which they belong.
        repeats: packet ids of this delivery under which an unacknowledged message came by an earlier connection,
            with the delivery number it had: the same message, if it is of the same bytes, whatever its DUP flag says.
        resent: delivery numbers of this delivery under whose ids a message came on this very connection that the
            broker has no ack of, with the number that it had: the same message likewise.
    """

    messages: Sequence[Message]
    first: int
    received_us: int
    resumed: bool = False
    since: int = 0
    turn: int = 0
    replayed: bool = False
    session: Session = NO_SESSION
    repeats: Mapping[int, int] = NO_REPEATS
    resent: Mapping[int, int] = NO_REPEATS

    def may_repeat(self, message: Message) -> bool:
        """Whether the message may have come before."""
        return (message.duplicate and self.resumed) or message.packet_id in self.repeats


class Reading(msgspec.Struct, gc=False):
    """One point of one device, as a decoder found it.

    Attributes:
        metrics: field name to value; values are what JSON can hold.
        time_us: the device's own time, µs since the Unix epoch; None: it sent none.
        device: serial number the payload claims; None: it claims none.
        metadata: what the device said about the reading.
        message_id: the message's own id.
        unused_time: of a reading without a time, the key that is surely meant as one and not configured as such.
    """

    metrics: dict[str, Any]
    time_us: int | None = None
    device: str | None = None
    metadata: dict[str, Any] | None = None
    message_id: str | None = None
    unused_time: str | None = None


class Receipt(msgspec.Struct, gc=False):
    """What the fast path is told of a delivery, and what it tells.

    Attributes:
        received_us: receive time, µs since the Unix epoch.
        untimed: the receive times given to readings without a time, by the message's index; None: none may be given,
            for such a message may have come before.
    """

    received_us: int
    untimed: dict[int, int] | None


FastRow = Callable[[bytes, "Device", frozenset[str], int, Receipt], bytes | None]
"""The encoded row of a message that is plain in every respect; None: the general path decides.

Of its payload, its device, the names that are no metric's where metrics stand beside the time, its index in the
delivery, and what is to be known of that.
"""


class Field(msgspec.Struct, frozen=True):
    """One field of a device type. ``minimum`` and ``maximum`` are inclusive, in ``unit``."""

    name: str
    data_type: DataType
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False


class DeviceType(msgspec.Struct, frozen=True):
    """What a kind of device sends, and what to do when it sends something else.

    Attributes:
        violations: ``flag`` (store, marked) or ``reject`` (dead letter).
        unknown_fields: ``keep``, ``drop`` or ``reject``.
    """

    id: uuid.UUID
    name: str
    fields: Mapping[str, Field]
    violations: Violations = "flag"
    unknown_fields: UnknownFields = "keep"


class Device(msgspec.Struct):
    """A device of the registry.

    Attributes:
        last_receive_us: receive time given to its latest reading without a time of its own; receive times are
            strictly increasing per device, so that two readings never share a key.
        columns: the part that is the same in every row of the device, encoded.
        check: judges the fields of a reading as the device's type says; None: anything goes.
        fast_row: the fast path of its plain messages in native JSON; None: there is none, or none any more, for the
            registry has forgotten the device.
    """

    id: uuid.UUID
    tenant_id: uuid.UUID
    serial_number: str
    tenant: str
    type: DeviceType
    enabled: bool = True
    last_receive_us: int = 0
    columns: bytes = b""
    check: Callable[[Reading], dict[str, str] | None] | None = None
    fast_row: FastRow | None = None


Share = Literal["device", "tenant", "stream"]
"""With which others a dead letter shares what is kept of an hour: those of its device, where the registry knows that;
else those of all unknown devices of its tenant, where that is known; else those of its stream."""


class DeadLetter(msgspec.Struct, gc=False):
    """A message that could not become readings, and why.

    Attributes:
        number: its delivery number.
        identity: of the message, not of the try, so that writing it again after a lost answer changes nothing.
        replay_failed: a replay of the dead letter with this id failed: it is noted there.
        detail: for people; no NUL in it.
        tenant, device: as the topic names them, where it does.
    """

    number: int
    message: Message
    stream: str
    received_us: int
    reason: Reason
    detail: str
    identity: bytes
    tenant: str | None = None
    device: str | None = None
    share: Share = "stream"
    replay_failed: bool = False

    @property
    def id(self) -> uuid.UUID:
        """The identity, as the table has it. Made when it is written: a letter that waits is the smaller for it."""
        return uuid.UUID(bytes=self.identity)
