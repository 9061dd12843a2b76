"""The redelivery ledger: what was stored under which packet id, written with it in one transaction.

A reading with a time of its own meets itself when it is delivered again. One without, and a dead letter, look
new; those are known again by the packet id under which the broker sent them and a digest, and only when the
broker says that it sends them again (DUP) in the session it kept. Never is a message dropped on DUP alone.

Hazard: a packet id may come again for another message of the same bytes. The broker cannot reuse an id before
it has our acknowledgement, and takes ids in turn, so a row is believed only until 65 535 more messages have
come for the first time. What comes again has the id it had: to count it too would forget, after a few lost
connections in a row, what the broker may still send again.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from gateway.messages import Message

WINDOW = 65_535
"""Most messages that can be unacknowledged at once: as many as there are packet ids (MQTT 5 §2.2.1)."""
_DIGEST_BYTES = 8
_PRUNE_EVERY = 256

_INSERT = """
INSERT INTO redelivery_ledger (batch_id, client_id, received, packet_ids, digests) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (batch_id) DO NOTHING
"""
_LOAD = """
SELECT packet_ids, digests FROM redelivery_ledger
WHERE client_id = $1 AND received > (SELECT max(received) FROM redelivery_ledger WHERE client_id = $1) - $2
ORDER BY received, written_at
"""
_LAST = "SELECT coalesce(max(received), 0) FROM redelivery_ledger WHERE client_id = $1"
_PRUNE = "DELETE FROM redelivery_ledger WHERE client_id = $1 AND received <= $2"
_WRITTEN = "SELECT EXISTS (SELECT FROM redelivery_ledger WHERE batch_id = $1)"


def digest(message: Message) -> bytes:
    """Eight bytes of topic and payload."""
    hashed = hashlib.blake2b(message.topic.encode() + b"\0", digest_size=_DIGEST_BYTES)
    hashed.update(message.payload)
    return hashed.digest()


class Ledger:
    """Writes the ledger of one client id, and knows after a reconnect what was stored before it.

    Attributes:
        client_id: MQTT client id; packet ids mean something only under it.

    Args:
        of_the_past: what it writes was received before all that this process stores live (a spool that is drained), so
            a packet id used again meanwhile speaks of the later message.
    """

    def __init__(self, client_id: str, *, of_the_past: bool = False) -> None:
        self.client_id, self._of_the_past = client_id, of_the_past
        self._stored: dict[int, bytes] = {}
        self._loaded_for: int | None = None
        self._before_start: int | None = None
        self._rows = 0

    def loaded(self, since: int) -> bool:
        """Whether it knows what was stored before the connection that began with this delivery number."""
        return self._loaded_for == since

    async def load(self, connection: Any, since: int) -> None:
        """Learn what was stored before the connection that began with delivery number ``since``."""
        self._stored = {}
        for row in await connection.fetch(_LOAD, self.client_id, WINDOW):
            ids, digests = _unpack_ids(row["packet_ids"]), row["digests"]
            self._stored.update(
                (packet_id, digests[at : at + _DIGEST_BYTES])
                for packet_id, at in zip(ids, range(0, len(digests), _DIGEST_BYTES), strict=True)
            )
        self._loaded_for = since

    def knows(self, message: Message) -> bool:
        """Whether this very message was stored under this packet id before the connection."""
        return message.packet_id is not None and self._stored.get(message.packet_id) == digest(message)

    async def write(
        self, connection: Any, batch_id: uuid.UUID, turn: int, messages: Iterable[Message]
    ) -> None:
        """One row for these messages, inside the caller's transaction; prunes now and then.

        Args:
            turn: of the batch; see :class:`gateway.messages.Chunk`.
        """
        numbered = [message for message in messages if message.packet_id is not None]
        if not numbered:
            return
        if self._before_start is None:
            self._before_start = await connection.fetchval(_LAST, self.client_id)
        received = self._before_start + (0 if self._of_the_past else turn)
        await connection.execute(_INSERT, batch_id, self.client_id, received, *_columns(numbered))
        self._rows += 1
        if self._rows % _PRUNE_EVERY == 0:
            await connection.execute(_PRUNE, self.client_id, received - WINDOW)


async def written(connection: Any, batch_id: uuid.UUID) -> bool:
    """Whether the transaction of this batch was committed: asked after its answer was lost."""
    return bool(await connection.fetchval(_WRITTEN, batch_id))


def _columns(messages: Sequence[Message]) -> tuple[bytes, bytes]:
    ids = (message.packet_id for message in messages)
    return struct.pack(f"<{len(messages)}H", *ids), b"".join(map(digest, messages))


def _unpack_ids(column: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(column) // 2}H", column)
