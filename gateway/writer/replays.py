"""Dead letters that a replay stores are noted so in the transaction of their rows: each becomes readings once.

Their readings may have no time of their own, so nothing in the tables could tell a second replay, nor two equal letters
from one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from gateway.writer import dead_letter_sql


async def enter(connection: Any, letters: Mapping[int, uuid.UUID]) -> set[int]:
    """Note that these are stored, by index of their message; the indices of those that a replay stored before.

    A letter that was deleted meanwhile was not.
    """
    noted = {row["id"] for row in await connection.fetch(dead_letter_sql.NOTE_STORED, list(letters.values()))}
    rest = [letter for letter in letters.values() if letter not in noted]
    if not rest:
        return set()
    before = {row["id"] for row in await connection.fetch(dead_letter_sql.THERE, rest)}
    return {index for index, letter in letters.items() if letter in before}
