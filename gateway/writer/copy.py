"""COPY into the hypertable, and what to do when the database will not have it.

Each commit carries one stretch of a batch: its rows, and with the last stretch the dead letters. COPY goes
straight into the table. A unique violation sends the same stretch through a staging table; data that the
database refuses is halved until the bad messages stand alone, log2(n) attempts each, and they become dead
letters. Errors that time or an operator mends are raised: the same work is handed in again, and goes on where
it stopped.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from gateway import errors, settings
from gateway.batches import Batch
from gateway.messages import DeadLetter, Message
from gateway.observability import events
from gateway.outcomes import Outcome, Reason
from gateway.storage import pools
from gateway.writer import conflicts, ledger, rows

_PROBE = """
SELECT time, device_id, tenant_id, data, metadata FROM telemetry WHERE false;
SELECT id FROM dead_letters WHERE false;
SELECT received FROM redelivery_ledger WHERE false;
"""


class Stretch(msgspec.Struct):
    """Messages ``start`` to ``stop`` of a batch; what one transaction carries."""

    start: int
    stop: int
    id: uuid.UUID = msgspec.field(default_factory=uuid.uuid4)
    """Names the transaction in the ledger, also when it is tried again after a lost answer."""


class Work:
    """A batch on its way into the database, and how far it got.

    Attributes:
        outcomes: per message of the batch, once known.
        refused: dead letters for messages that the database refuses, by index.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.outcomes: list[Outcome] = [Outcome.STORED] * len(batch.numbers)
        self.refused: dict[int, DeadLetter] = {}
        self.left = [Stretch(0, len(batch.numbers))]

    def letters(self) -> list[DeadLetter]:
        """All dead letters of the batch; they go with the last stretch."""
        return [*self.batch.letters, *self.refused.values()] if len(self.left) == 1 else []

    def isolate(self, error: errors.PoisonError) -> None:
        """Halve the stretch that the database refuses, or give up on it when it is a single message."""
        stretch = self.left[-1]
        if stretch.stop - stretch.start > 1:
            middle = (stretch.start + stretch.stop) // 2
            self.left[-1:] = [Stretch(middle, stretch.stop), Stretch(stretch.start, middle)]
            return
        if stretch.start == stretch.stop:
            raise errors.TransientError(f"dead letters refused: {error}", error.sqlstate)
        self.outcomes[stretch.start] = Outcome.DEAD_LETTERED
        self.refused[stretch.start] = self.batch.letter_for(
            stretch.start, Reason.REFUSED_BY_DATABASE, str(error)
        )
        # An empty stretch stays, to carry the dead letters.
        self.left[-1] = Stretch(stretch.stop, stretch.stop)


class Writer:
    """One COPY connection. Not for concurrent use."""

    def __init__(self, database: settings.Database, book: ledger.Ledger, *, name: str = "timeseries") -> None:
        self._database, self._ledger, self._name = database, book, name
        self._connection: Any = None

    async def probe(self) -> None:
        """See that the database is there and has what the writer needs.

        Raises:
            StoreError: it has not; the text says what to run.
        """
        connection = await self._open()
        with pools.translate(self._name):
            await connection.execute(_PROBE)

    async def write(self, work: Work) -> None:
        """Write what is left of the work.

        Raises:
            StoreError: hold the work and hand it in again; what was committed stays done.
        """
        while work.left:
            connection = await self._open()
            try:
                await self._attempt(connection, work)
            except errors.PoisonError as error:
                work.isolate(error)
            else:
                work.left.pop()

    async def close(self) -> None:
        """Close the connection at once; what is not committed is rolled back by the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _open(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await pools.connect(
                self._database, application_name="gateway-writer", name=self._name
            )
        return self._connection

    async def _attempt(self, connection: Any, work: Work) -> None:
        started = time.perf_counter()
        with pools.translate(self._name):
            try:
                count = await self._straight(connection, work)
            except errors.ConflictError:
                count = await self._staged(connection, work)
            except errors.DecompressionLimitError:
                count = await self._staged(connection, work, lift_limit=True)
        stretch, seconds = work.left[-1], time.perf_counter() - started
        events.batch_stored(messages=stretch.stop - stretch.start, rows=count, seconds=seconds)

    async def _straight(self, connection: Any, work: Work) -> int:
        """COPY right into the tables; one exchange when there is nothing but rows that meet themselves."""
        stretch, letters = work.left[-1], work.letters()
        known_again = self._known_again(work, letters)
        with pools.translate(self._name):
            encoded = work.batch.rows[stretch.start : stretch.stop]
            if not letters and not known_again:
                return await _copy(connection, "telemetry", encoded)
            async with connection.transaction():
                count = await _copy(connection, "telemetry", encoded)
                fresh = [conflicts.letter_record(letter) for letter in letters if not letter.again]
                if fresh:
                    await connection.copy_records_to_table(
                        "dead_letters", records=fresh, columns=conflicts.LETTER_COLUMNS
                    )
                await _note_again(connection, letters)
                await self._ledger.write(connection, stretch.id, work.batch.latest(), known_again)
        return count

    def _known_again(self, work: Work, letters: Iterable[DeadLetter]) -> list[Message]:
        """The messages of this stretch that only the ledger can recognise when they are delivered again."""
        stretch, batch = work.left[-1], work.batch
        unkeyed = [batch.messages[i] for i in batch.unkeyed if stretch.start <= i < stretch.stop]
        return unkeyed + [letter.message for letter in letters]

    async def _staged(self, connection: Any, work: Work, *, lift_limit: bool = False) -> int:
        """The same stretch by way of a temporary table, which takes every key.

        After a lost answer this is also how the work finds itself in the tables already.
        """
        try:
            with pools.translate(self._name):
                async with connection.transaction():
                    if lift_limit:
                        await connection.execute(conflicts.LIFT_DECOMPRESSION_LIMIT)
                    return await self._stage_stretch(connection, work)
        except errors.DecompressionLimitError:
            if lift_limit:
                raise
            return await self._staged(connection, work, lift_limit=True)

    async def _stage_stretch(self, connection: Any, work: Work) -> int:
        stretch, letters = work.left[-1], work.letters()
        if await ledger.written(connection, stretch.id):
            return 0
        count = 0
        await connection.execute(conflicts.STAGE)
        for staging in _stagings(work.batch, stretch):
            kept = await _insert_staged(connection, staging)
            count += len(kept)
            for index, outcome in staging.outcomes(kept).items():
                work.outcomes[index] = outcome
        if letters:
            await connection.executemany(conflicts.INSERT_LETTER, list(map(conflicts.letter_record, letters)))
        await self._ledger.write(
            connection, stretch.id, work.batch.latest(), self._known_again(work, letters)
        )
        return count


def _stagings(batch: Batch, stretch: Stretch) -> Iterable[conflicts.Staging]:
    """The rows of the stretch, grouped by what is to be done about conflicts."""
    found: dict[str, conflicts.Staging] = {}
    for index in range(stretch.start, stretch.stop):
        policy = "distinct" if index in batch.unkeyed else batch.origins[index].on_conflict
        if policy not in found:
            found[policy] = conflicts.Staging(policy)
        found[policy].add(index, batch.rows[index])
    return found.values()


async def _insert_staged(connection: Any, staging: conflicts.Staging) -> set[bytes]:
    """Stage, insert; the keys under which something new is kept."""
    await _stage(connection, staging)
    if staging.on_conflict == "distinct":
        while taken := conflicts.keys(await connection.fetch(conflicts.TAKEN_BY_OTHERS)):
            staging.step_aside(taken)
            await _stage(connection, staging)
    return conflicts.keys(await connection.fetch(conflicts.INSERTS[staging.on_conflict]))


async def _note_again(connection: Any, letters: Sequence[DeadLetter]) -> None:
    """Replays that failed stay the dead letters they were."""
    again = [conflicts.again_record(letter) for letter in letters if letter.again]
    if again:
        await connection.executemany(conflicts.FAILED_AGAIN, again)


async def _stage(connection: Any, staging: conflicts.Staging) -> None:
    await connection.execute(conflicts.EMPTY_STAGE)
    await _copy(connection, "gateway_staged", [row.joined() for row in staging.rows.values()])


async def _copy(connection: Any, table: str, encoded: Sequence[bytes]) -> int:
    """COPY these rows; how many there were."""
    if not encoded:
        return 0
    status = await connection.copy_to_table(
        table, source=_stream(encoded), columns=rows.COLUMNS, format="binary"
    )
    return int(status.rpartition(" ")[2])


async def _stream(encoded: Sequence[bytes]) -> AsyncIterator[bytes]:
    """One binary COPY stream, in one piece."""
    yield b"".join((rows.HEADER, *encoded, rows.TRAILER))
