"""How a message can end, and why a dead letter is one.

Every message ends in exactly one :class:`Outcome`; only then is it acknowledged to the broker.
There is no outcome that means lost. Below them, the enumerations that configuration, registry and path have in common.
Imports nothing of ours.
"""

from __future__ import annotations

import enum
from typing import Literal


class Outcome(enum.StrEnum):
    """The end of a message. Values are metric labels: do not rename."""

    STORED = "stored"
    """All its rows are in a committed transaction."""
    DUPLICATE = "duplicate"
    """A redelivery, or conflicting copy, of something stored; nothing new to keep."""
    SPOOLED = "spooled"
    """Its bytes are fsynced in the disk spool."""
    DEAD_LETTERED = "dead_lettered"
    """Topic, payload, reason and detail are durable in ``dead_letters``."""
    IGNORED = "ignored"
    """Configuration says so."""


class Reason(enum.StrEnum):
    """Why a message became a dead letter or was ignored. A closed set: metric label and column value."""

    # the payload
    EMPTY = "empty_payload"
    TOO_LARGE = "payload_too_large"
    NOT_UTF8 = "not_utf8"
    MALFORMED = "malformed"
    TOO_DEEP = "nested_too_deep"
    DUPLICATE_KEY = "duplicate_key"
    BAD_TEXT = "bad_text"
    """NUL or a lone surrogate: PostgreSQL cannot store it as text."""
    BAD_NUMBER = "bad_number"
    """NaN, Infinity, or beyond what the database can hold."""
    BAD_SHAPE = "unexpected_shape"
    BAD_TIMESTAMP = "bad_timestamp"
    # the packet
    BAD_PACKET = "malformed_packet"
    """The broker sent what is no MQTT; payload and topic are kept as far as they can be told."""
    # the topic and the device
    NO_STREAM = "no_stream"
    UNKNOWN_TENANT = "unknown_tenant"
    UNKNOWN_DEVICE = "unknown_device"
    PROVISIONING_LIMIT = "provisioning_limit"
    """It would be provisioned, but for the limit of its tenant's hour."""
    DEVICE_DISABLED = "device_disabled"
    DEVICE_MISMATCH = "device_mismatch"
    # validation
    INVALID_FIELD = "invalid_field"
    OUT_OF_RANGE = "out_of_range"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    IN_THE_FUTURE = "timestamp_in_future"
    TOO_OLD = "timestamp_too_old"
    UNUSED_TIME = "time_not_used"
    """It got the receive time, although it has a key that is surely meant as its time."""
    MESSAGE_ID_REUSED = "message_id_reused"
    """Another message had its id before, with another payload, and the stream says that this is refused."""
    TOO_MANY_DAYS = "too_many_days"
    """Its readings fall on more days than one transaction can have chunks of."""
    CHUNK_LIMIT = "chunk_limit"
    """Chunks would be made for it, and its tenant had those of the hour."""
    ROW_TOO_LARGE = "row_too_large"
    """Merged with what its row holds already, the row would be too large."""
    # the database
    REFUSED_BY_DATABASE = "refused_by_database"
    GATEWAY_DEFECT = "gateway_defect"
    """The gateway itself failed on it; to be replayed with a version that does not."""
    SET_APART = "set_apart"
    """It ended the process three times, and was not looked at again."""
    # ignored, by configuration
    RETAINED = "retained"
    STREAM_IGNORED = "stream_ignored"
    DEVICE_IGNORED = "device_ignored"


IGNORED_REASONS = frozenset((Reason.RETAINED, Reason.STREAM_IGNORED, Reason.DEVICE_IGNORED))
"""With one of these a message is ignored; with any other reason it becomes a dead letter."""

DEAD_LETTER_REASONS = tuple(reason for reason in Reason if reason not in IGNORED_REASONS)
"""What ``docs/dead-letters.md`` explains."""


DeviceState = Literal["active", "disabled"]
DataType = Literal["float", "int", "bool", "text", "json"]
Violations = Literal["flag", "reject"]
UnknownFields = Literal["keep", "drop", "reject"]

UnknownDevice = Literal["dead_letter", "provision", "ignore"]
Retained = Literal["auto", "store", "ignore"]
MessageIdReused = Literal["store", "dead_letter"]
OnConflict = Literal["merge", "keep", "replace"]
UnbelievableTime = Literal["reject", "receive_time", "keep"]


class Tally:
    """The books of one stream: what came, and how it ended.

    The conservation law: ``received = sum(settled) + in_flight`` at every instant. ``in_flight`` is not kept here:
    they are counted where they are held, so that the law can fail, and be seen to.
    """

    __slots__ = ("qos0", "received", "settled")

    def __init__(self) -> None:
        self.received = 0
        self.qos0 = 0
        """Of those received, how many came at QoS 0: the broker cannot deliver them again."""
        self.settled = dict.fromkeys(Outcome, 0)

    def balance(self, in_flight: int) -> int:
        """Messages unaccounted for, given how many are held; anything but 0 is a defect of the gateway."""
        return self.received - sum(self.settled.values()) - in_flight
