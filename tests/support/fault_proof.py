"""What is in the tables against what was published, counted to the message by what the messages say."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from tests.support.databases import Databases
from tests.support.plan import GOOD, Plan
from tests.support.sql import wait_for

FETCH = 50_000
"""Rows fetched at once: a soak's table is not held in memory."""

Refused = Callable[[int], bool]
"""Whether the database refuses the reading of this ``seq``."""


@dataclass
class Verdict:
    """How a plan ended.

    Attributes:
        lost: published, and in no table.
        twice: rows and dead letters beyond one a message.
        strange: rows and dead letters that nobody published, or that are where they should not be.
    """

    messages: int = 0
    stored: int = 0
    dead_letters: int = 0
    lost: int = 0
    twice: int = 0
    strange: int = 0

    def right(self, lost: int = 0) -> bool:
        """Nothing lost but so many, nothing twice, and rows + dead letters are the messages published."""
        wrong = self.twice or self.strange or self.lost != lost
        return not wrong and self.stored + self.dead_letters == self.messages - lost


class TableContents:
    """What the tables hold: how often each ``seq`` is stored, and each payload a dead letter."""

    def __init__(self, count: int) -> None:
        self.stored = bytearray(count)
        self.rows = self.strange = 0
        self.letters: Counter[bytes] = Counter()

    def add_row(self, seq: int | None) -> None:
        """A row of ``telemetry``."""
        self.rows += 1
        if seq is None or not 0 <= seq < len(self.stored):
            self.strange += 1
        else:
            self.stored[seq] = min(self.stored[seq] + 1, 255)


def never(_seq: int) -> bool:
    """The database takes every reading."""
    return False


def verdict(databases: Databases, plans: Sequence[Plan], refused: Refused = never) -> Verdict:
    """Compare with all that was published; waits for nothing.

    Args:
        refused: good readings that must be dead letters, because the database does not take them.
    """
    found = wait_for(_find(databases.timeseries_dsn, max(plan.first + plan.count for plan in plans)))
    messages = sum(plan.count for plan in plans)
    told = Verdict(messages, found.rows, found.letters.total(), strange=found.strange)
    for message in itertools.chain.from_iterable(plan.messages() for plan in plans):
        if message.kind != GOOD or refused(message.number):
            _judge_letter(told, found, message.payload)
        else:
            copies = found.stored[message.number]
            told.lost += copies == 0
            told.twice += max(copies - 1, 0)
            found.stored[message.number] = 0
    told.strange += sum(map(bool, found.stored)) + found.letters.total()
    return told


def _judge_letter(told: Verdict, found: TableContents, payload: bytes) -> None:
    copies = found.letters.pop(payload, 0)
    told.lost += copies == 0
    told.twice += max(copies - 1, 0)


async def _find(dsn: str, count: int) -> TableContents:
    found = TableContents(count)
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        async with connection.transaction():
            rows = connection.cursor("SELECT (data->>'seq')::int FROM telemetry", prefetch=FETCH)
            async for row in rows:
                found.add_row(row[0])
            letters = connection.cursor("SELECT payload FROM dead_letters", prefetch=FETCH)
            async for letter in letters:
                found.letters[letter[0]] += 1
    finally:
        async with asyncio.timeout(10):
            await connection.close()
    return found
