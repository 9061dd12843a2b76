"""Messages that carry an id of their own are stored once within a horizon: ``processed_messages``.

The ids are entered in the transaction of the rows, so they are there exactly when the rows are. An id means something
only beside its device, for devices count from one, and only beside the content: they count from one again after a
reboot. The same id with another payload is another message.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.batches import MessageId

_KNOWN = """
SELECT tenant_id, message_id, digest FROM processed_messages
JOIN unnest($1::uuid[], $2::text[]) AS given (tenant_id, message_id) USING (tenant_id, message_id)
WHERE processed_at >= now() - make_interval(secs => $3) AND digest <> ''
"""
_ENTER = """
INSERT INTO processed_messages AS known (tenant_id, message_id, digest)
SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]) ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, message_id, digest) DO UPDATE SET processed_at = now()
WHERE known.processed_at < now() - make_interval(secs => $4)
RETURNING tenant_id, message_id, digest
"""
_PRUNE = "DELETE FROM processed_messages WHERE processed_at < now() - make_interval(secs => $1)"
_DIGEST_BYTES = 8


class Entered(msgspec.Struct):
    """What is known of messages by their own ids; indices.

    Attributes:
        seen: processed before, with this content.
        reused: with an id that another message had.
    """

    seen: set[int] = msgspec.field(default_factory=set)
    reused: set[int] = msgspec.field(default_factory=set)


def digest(payload: bytes) -> bytes:
    """What tells the content of messages with one id apart."""
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()


async def enter(
    connection: Any,
    ids: Mapping[int, Sequence[MessageId]],
    digests: Mapping[int, bytes],
    horizon: float,
    refuse: Collection[int] = (),
) -> Entered:
    """Enter the ids of these messages, by index.

    Of several messages with one id and content the first counts. A message with several ids (a list of readings) was
    processed before when all of them were, with this content.

    Args:
        refuse: messages that are not entered when their id had another content.
    """
    known = await _known(connection, ids.values(), horizon)
    entered, entries = Entered(), {}
    for index in sorted(ids):
        content = digests[index]
        if all(content in known[one] for one in ids[index]):
            entered.seen.add(index)
            continue
        if any(known[one] and content not in known[one] for one in ids[index]):
            entered.reused.add(index)
            if index in refuse:
                continue
        for one in ids[index]:
            known[one].add(content)
        entries[index] = {(*one, content) for one in ids[index]}
    fresh = await _enter(connection, [one for several in entries.values() for one in several], horizon)
    # What another connection entered just now.
    entered.seen |= {index for index, several in entries.items() if fresh.isdisjoint(several)}
    entered.reused -= entered.seen
    return entered


async def _known(
    connection: Any, ids: Iterable[Sequence[MessageId]], horizon: float
) -> defaultdict[MessageId, set[bytes]]:
    flat = {one for several in ids for one in several}
    known: defaultdict[MessageId, set[bytes]] = defaultdict(set)
    for row in await connection.fetch(_KNOWN, [one[0] for one in flat], [one[1] for one in flat], horizon):
        known[row["tenant_id"], row["message_id"]].add(row["digest"])
    return known


async def _enter(connection: Any, entries: Sequence[tuple[Any, ...]], horizon: float) -> set[tuple[Any, ...]]:
    columns = list(zip(*entries, strict=True)) or [(), (), ()]
    return {tuple(row) for row in await connection.fetch(_ENTER, *columns, horizon)}


async def prune(connection: Any, horizon: float) -> None:
    """Forget what is older than the horizon, seconds."""
    await connection.execute(_PRUNE, horizon)
