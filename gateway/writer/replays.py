"""Dead letters that a replay stores are noted so in the transaction of their rows: each becomes readings once.

Their readings may have no time of their own, so nothing in the tables could tell a second replay, nor two equal letters
from one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

_NOTE = """
UPDATE dead_letters SET replays = replays + 1, replayed_at = now(), replay_outcome = 'stored'
WHERE id = ANY($1::uuid[]) AND (replay_outcome IS NULL OR replay_outcome NOT IN ('stored', 'duplicate'))
RETURNING id
"""
_STORED_BEFORE = "SELECT id FROM dead_letters WHERE id = ANY($1::uuid[])"


async def enter(connection: Any, letters: Mapping[int, uuid.UUID]) -> set[int]:
    """Note that these are stored, by index of their message; the indices of those that a replay stored before.

    A letter that was deleted meanwhile was not.
    """
    noted = {row["id"] for row in await connection.fetch(_NOTE, list(letters.values()))}
    rest = [letter for letter in letters.values() if letter not in noted]
    if not rest:
        return set()
    before = {row["id"] for row in await connection.fetch(_STORED_BEFORE, rest)}
    return {index for index, letter in letters.items() if letter in before}
