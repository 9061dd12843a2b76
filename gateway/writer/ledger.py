"""The redelivery ledger: what was stored under which packet id, written with it in one transaction.

A reading with a time of its own meets itself when it is delivered again. One without, and a dead letter, look new;
this process knows them by their delivery numbers (``redeliveries``), and a later one by this ledger: by the
packet id under which the broker sent them and a digest, in the session to which they belong, when the broker says that
it sends them again (DUP). Never is a message dropped on DUP alone.

Hazard: a packet id comes again for another message, perhaps of the same bytes, as soon as the broker has read our
acknowledgement. So nothing is believed up to the position that the broker is known to have read
(``tracking``), nothing that lies a whole round of packet ids back, and nothing at all of a broker that was
seen to hand out an id before all others had their turn.
"""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from gateway.messages import DIGEST_BYTES, PACKET_IDS, Message, Session, digest
from gateway.sessions.tracking import Sessions
from gateway.storage import pools

_PRUNE_EVERY = 256
_COMMIT_SECONDS = 10.0
_LOOK_SECONDS = 0.05

_INSERT = """
INSERT INTO redelivery_ledger (batch_id, client_id, session, received, packet_ids, digests)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (batch_id) DO NOTHING
"""
_LOAD = """
SELECT received, packet_ids, digests FROM redelivery_ledger
WHERE client_id = $1 AND session = $2 ORDER BY received, written_at
"""
_PRUNE = """
DELETE FROM redelivery_ledger WHERE client_id = $1 AND CASE WHEN session = $2 THEN received <= $3
ELSE written_at < now() - interval '1 day' END
"""
"""Rows of other sessions still tell whether a transaction whose answer was lost was committed."""
_UNDER_WAY = """
SELECT virtualtransaction FROM pg_locks
WHERE relation = 'redelivery_ledger'::regclass AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Transactions that have written to the ledger and are not over."""
_WRITTEN = "SELECT EXISTS (SELECT FROM redelivery_ledger WHERE batch_id = $1)"
_BEHIND_IT = "SELECT pg_logical_emit_message(true, 'gateway', '')"
"""Something to commit, which is never read: this COMMIT waits for a synchronous standby, and with it for all before."""

Entry = tuple[int, Message]
"""A message and its delivery number."""


class Ledger:
    """Writes the ledger of one client id, and knows what earlier processes wrote.

    Attributes:
        client_id: MQTT client id; packet ids mean something only under it.

    Args:
        sessions: which session an earlier process left, and what of it may be believed.
        stored: called with delivery numbers and digests of what is written, before it is committed.
    """

    def __init__(
        self, client_id: str, sessions: Sessions, stored: Callable[[Sequence[int], Sequence[bytes]], None]
    ) -> None:
        self.client_id, self._sessions, self._enter = client_id, sessions, stored
        self._stored: dict[int, tuple[int, bytes]] = {}
        self._loaded_for: tuple[Session, int] | None = None
        self._rows = 0

    def loaded(self, session: Session, since: int) -> bool:
        """Whether it has looked what was stored in this session, for messages since this delivery number."""
        return self._loaded_for == (session, since)

    async def load(self, connection: Any, session: Session, since: int) -> None:
        """Learn what was stored in this session, by earlier processes above all."""
        await self._sessions.look_up()
        if self._loaded_for is None:
            await _until_committed(connection)
        rows = []
        if session.id:
            rows = await connection.fetch(_LOAD, self.client_id, uuid.UUID(bytes=session.id))
        self._stored = positions([(row["received"], row["packet_ids"], row["digests"]) for row in rows])
        self._loaded_for = session, since

    def knows(self, message: Message) -> bool:
        """Whether an earlier process stored this very message under this packet id, and the broker may not know it."""
        position, stored = self._stored.get(message.packet_id or 0, (0, b""))
        return stored == digest(message) and self._may_believe(position)

    def _may_believe(self, position: int) -> bool:
        """Of a spooled message it is not known any more how much the broker had read when it came."""
        if self._loaded_for is not None and self._loaded_for[0] is self._sessions.inherited:
            return self._sessions.believes(position)
        return self._sessions.in_turn

    async def write(
        self, connection: Any, batch_id: uuid.UUID, session: Session, turn: int, entries: Sequence[Entry]
    ) -> None:
        """One row for these messages, inside the caller's transaction; prunes now and then.

        Args:
            session, turn: of the batch; see :class:`gateway.messages.Delivery`.
        """
        numbered = [(number, message) for number, message in entries if message.packet_id is not None]
        if not numbered:
            return
        if session.inherited and not session.id:
            await self._sessions.look_up()
        # Without a session nothing is believed of it; it still tells that the transaction was committed.
        named = uuid.UUID(bytes=session.id) if session.id else None
        position = session.position(turn) if session.id else 0
        digests = [digest(message) for _, message in numbered]
        ids = struct.pack(f"<{len(numbered)}H", *[message.packet_id for _, message in numbered])
        await connection.execute(_INSERT, batch_id, self.client_id, named, position, ids, b"".join(digests))
        self._enter([number for number, _ in numbered], digests)
        self._rows += 1
        if self._rows % _PRUNE_EVERY == 0:
            await connection.execute(_PRUNE, self.client_id, named, position - PACKET_IDS)


async def _until_committed(connection: Any) -> None:
    """Wait for transactions under way: a killed process may have sent its COMMIT, and a slow disk takes its time.

    One that hangs is not waited for long: rather twice than never.
    """
    deadline = time.monotonic() + _COMMIT_SECONDS
    waited_for = await _under_way(connection)
    while waited_for and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_SECONDS)
        waited_for &= await _under_way(connection)


async def _under_way(connection: Any) -> set[str]:
    return {row["virtualtransaction"] for row in await connection.fetch(_UNDER_WAY)}


def positions(rows: Sequence[tuple[int, bytes, bytes]]) -> dict[int, tuple[int, bytes]]:
    """Position and digest by packet id, of the last message under each.

    Args:
        rows: position of the last message, packet ids and digests of each row, in the order of writing.
    """
    floor = max((row[0] for row in rows), default=0) - PACKET_IDS
    return {
        packet_id: (position, digests[at : at + DIGEST_BYTES])
        for received, packed, digests in rows
        for packet_id, at in zip(_unpack_ids(packed), range(0, len(digests), DIGEST_BYTES), strict=True)
        if (position := received - (received - packet_id) % PACKET_IDS) > floor
    }


async def written(connection: Any, batch_id: uuid.UUID) -> bool:
    """Whether the transaction of this batch was committed: asked after its answer was lost.

    Returns when a synchronous standby has it too: its own COMMIT may have been kept from waiting for that.
    """
    found = bool(await connection.fetchval(_WRITTEN, batch_id))
    if found:
        async with pools.transaction(connection):
            await connection.execute(_BEHIND_IT)
    return found


def _unpack_ids(column: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(column) // 2}H", column)
