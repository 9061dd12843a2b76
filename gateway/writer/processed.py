"""Messages that carry an id of their own are stored once within a horizon: ``processed_messages``.

The ids are entered in the transaction of the rows, so they are there exactly when the rows are. An id means something
only beside its device, for devices count from one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.batches import MessageId

_ENTER = """
INSERT INTO processed_messages AS known (tenant_id, message_id)
SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[])
ON CONFLICT (tenant_id, message_id) DO UPDATE SET processed_at = now()
WHERE known.processed_at < now() - make_interval(secs => $3)
RETURNING tenant_id, message_id
"""
_PRUNE = "DELETE FROM processed_messages WHERE processed_at < now() - make_interval(secs => $1)"


async def enter(connection: Any, ids: Mapping[int, Sequence[MessageId]], horizon: float) -> set[int]:
    """Enter the ids of these messages, by index; the indices of those that were processed before.

    Of several messages with one id the first counts. A message with several ids (a list of readings) was processed
    before when all of them were.
    """
    flat = [one for several in ids.values() for one in several]
    rows = await connection.fetch(_ENTER, [one[0] for one in flat], [one[1] for one in flat], horizon)
    fresh = {(row["tenant_id"], row["message_id"]) for row in rows}
    seen: set[int] = set()
    for index in sorted(ids):
        if fresh.isdisjoint(ids[index]):
            seen.add(index)
        fresh.difference_update(ids[index])
    return seen


async def prune(connection: Any, horizon: float) -> None:
    """Forget what is older than the horizon, seconds."""
    await connection.execute(_PRUNE, horizon)
