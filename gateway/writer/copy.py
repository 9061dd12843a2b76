"""COPY into the hypertable, and what to do when the database will not have it.

Each commit carries one stretch of a batch: its rows, and with the last stretch the dead letters. COPY goes
straight into the table. A unique violation sends the same stretch through a staging table; data that the
database refuses is sifted (:mod:`gateway.writer.sift`), or halved until the bad messages stand alone, in about
2 log2(n) attempts each, and these become dead letters. Errors that time or an operator mends are raised: the same
work is handed in again, and goes on where it stopped. What fails again and again while the server works is dealt
with alike (:mod:`gateway.writer.work`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway import errors, settings
from gateway.batches import Batch
from gateway.messages import DeadLetter
from gateway.observability import events
from gateway.observability.metrics import LIVE
from gateway.outcomes import Outcome, Reason
from gateway.storage import pools
from gateway.writer import conflicts, ledger, processed, replays, rows, sift, staged
from gateway.writer.experience import Experience, StoredRows
from gateway.writer.layouts import TELEMETRY, StreamTarget
from gateway.writer.letters import Letters
from gateway.writer.probe import probe
from gateway.writer.work import BatchRange, BatchWrite, History, refused_by_database

_TOO_MUCH = ("53200", "57014", "25P04", None)
"""Out of memory or locks, or of time: by the server's clock or, without a SQLSTATE, by ours."""
_DEADLOCK = "40P01"
_LARGE_BYTES = 2**16
"""Of rows: to unite more of them takes the event loop's time."""


class Writer:
    """One COPY connection. Not for concurrent use.

    Args:
        horizon: seconds that a message's own id is remembered.
        experience: shared with the other writers of the process.
        path: which it writes for, ``live`` or ``spool``: label of its metrics.
        max_row_bytes: a reading that would make its row larger by merging becomes a dead letter.
        letters: how much of dead letters is kept.
        targets: all tables that readings go to.
    """

    def __init__(
        self,
        database: settings.DatabaseSettings,
        book: ledger.Ledger,
        *,
        horizon: float,
        name: str = "timeseries",
        experience: Experience | None = None,
        path: str = LIVE,
        max_row_bytes: int = 2**18,
        letters: settings.DeadLettersSettings | None = None,
        targets: Iterable[StreamTarget] = (TELEMETRY,),
    ) -> None:
        self._database, self._ledger, self._horizon, self._name = database, book, horizon, name
        self._experience, self._path = experience or Experience(), path
        self._max_row_bytes = max_row_bytes
        self._letters = Letters(letters or settings.DeadLettersSettings())
        self._targets = {target.table: target for target in targets}
        self._connection: Any = None

    async def probe(self) -> None:
        """See that the database is there, takes rows and has what the writer needs.

        Raises:
            StoreError: it has not; the text says what to run.
        """
        connection = await self._open()
        with pools.translate(self._name):
            changed = await connection.has_changed()
        if changed:
            await self.close()
            connection = await self._open()
        with pools.translate(self._name):
            await probe(connection, self._name, self._targets.values())

    async def write(self, work: BatchWrite) -> None:
        """Write what is left of the work. What then still is left was set apart: it fails although the server works.

        Raises:
            StoreError: hold the work and hand it in again; what was committed stays done.
        """
        work.begin_round()
        moved = False
        while work.left:
            work.fit(self._experience.most)
            connection = await self._open()
            try:
                await self._attempt(connection, work)
                pools.require_replicated(connection, self._name)
            except conflicts.RowTooLargeError as error:
                work.refuse({index: self._too_large(size) for index, size in error.sizes.items()})
            except errors.StoreError as error:
                if error.sqlstate == pools.READ_ONLY and not (connection.read_only or moved):
                    # Demoted since the session began: the primary may be another host now. Once, for it may be a
                    # trigger that says so.
                    moved = True
                    work.unanswered()
                    await self.close()
                elif not await self._goes_on(work, error):
                    return
            else:
                work.done()

    def _too_large(self, size: int) -> errors.MessageError:
        most = self._max_row_bytes
        why = f"merged, its row would have {size} bytes, more than {most} (validation.max_row_bytes)"
        return errors.MessageError(Reason.ROW_TOO_LARGE, why)

    async def _goes_on(self, work: BatchWrite, error: errors.StoreError) -> bool:
        """Whether to go on with the rest of the work, after its next stretch failed.

        Raises:
            StoreError: no: it is not the work's own fault, as far as can be told.
        """
        if isinstance(error, errors.PoisonError) and (await self._refused(work) or work.isolate(error)):
            return True
        work.unanswered()
        probed = work.suspect and error.sqlstate is not None and not (error.of_all or self._closed())
        if not probed:
            # It may be this session only that is wrong: read-only by a setting mended meanwhile, timed out.
            await self.close()
        persists = work.persists(error, self._experience.rows)
        failing = {} if error.of_all or error.sqlstate in _TOO_MUCH else await self._sift(work)
        if failing and (persists or len(failing) < len(work.next.indices)):
            return work.leave(failing)
        if not persists:
            try:
                raise error
            finally:
                del error  # it knows this frame: they would keep each other, and the work
        if not probed:
            await self.probe()
        if error.sqlstate in _TOO_MUCH:
            self._experience.too_many(len(work.next.indices))
        history = work.history
        return work.set_apart(thorough=history is not None and await self._works_for_others(history))

    async def _refused(self, work: BatchWrite) -> bool:
        """Whether the messages of the next stretch that are poison were found; they are refused, all at once."""
        found = await self._sift(work)
        poison = {index: error for index, error in found.items() if isinstance(error, errors.PoisonError)}
        if poison:
            work.refuse({index: refused_by_database(str(error)) for index, error in poison.items()})
        return bool(poison)

    async def _sift(self, work: BatchWrite) -> Mapping[int, errors.StoreError]:
        """The messages of the next stretch that fail by themselves; none where that cannot be found out."""
        stretch, encoded = work.next, work.batch.rows
        size = work.batch.row_bytes_of(stretch.indices)
        if stretch.sifted or not 1 < len(stretch.indices) <= sift.MOST_MESSAGES or size > sift.MOST_BYTES:
            return {}
        stretch.sifted = True
        found: dict[int, errors.StoreError] = {}
        try:
            connection = await self._open()
            for target, indices in self._parts(work):
                found |= await sift.failing(connection, target, {index: encoded[index] for index in indices})
        except errors.StoreError:
            await self.close()
            return {}
        return found

    async def _works_for_others(self, history: History) -> bool:
        """Whether others were stored since this failed last, or would be.

        None may come: a broker's window is soon full of messages whose acknowledgements wait for this one.
        """
        if self._experience.rows == history.rows and history.beside and not history.proven:
            history.proven = await self._takes_sample()
        return history.proven or self._experience.rows > history.rows

    async def _takes_sample(self) -> bool:
        """Whether the database takes, as far as its keys, what it took before; nothing is written."""
        if self._experience.sample is None:
            return False
        table, encoded = self._experience.sample
        try:
            connection = await self._open()
            with pools.translate(self._name):
                async with pools.tried_out(connection):
                    await _copy(connection, self._targets[table], [encoded])
        except (errors.ConflictError, errors.DecompressionLimitError):
            return True
        except errors.StoreError:
            return False
        return True

    async def close(self) -> None:
        """Close the connection at once; what is not committed is rolled back by the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _open(self) -> Any:
        if self._closed():
            await self.close()
            self._connection = await pools.connect(
                self._database, application_name="gateway-writer", name=self._name
            )
        return self._connection

    def _closed(self) -> bool:
        return self._connection is None or self._connection.is_over

    async def _attempt(self, connection: Any, work: BatchWrite) -> None:
        started, stretch, messages = time.perf_counter(), work.next, len(work.next.indices)
        self._letters.begin()
        with pools.translate(self._name), pools.statement("SELECT FROM redelivery_ledger"):
            if stretch.uncertain and await ledger.written(connection, stretch.id):
                return
        try:
            size = work.batch.row_bytes_of(stretch.indices) if self._experience.conflicts else 0
            if size > _LARGE_BYTES * messages:
                # In vain, COPY into the table would cost the server as much as when it counts.
                count = await self._staged(connection, work, lift_limit=False)
            else:
                count = await self._straight(connection, work)
        except errors.ConflictError:
            self._experience.conflicted()
            count = await self._staged(connection, work, lift_limit=False)
        except errors.TransientError as error:
            if error.sqlstate != _DEADLOCK:
                raise
            # Another of our connections wrote the same keys in another order; staged they are sorted.
            self._experience.conflicted()
            count = await self._staged(connection, work, lift_limit=False)
        except errors.DecompressionLimitError:
            count = await self._staged(connection, work, lift_limit=True)
        self._letters.committed()
        self._experience.stored(count, _sample(work, stretch) if count else None)
        seconds = time.perf_counter() - started
        events.batch_stored(path=self._path, messages=messages, rows=count, seconds=seconds)

    async def _straight(self, connection: Any, work: BatchWrite) -> int:
        """COPY right into the tables; one exchange when there is nothing but rows that meet themselves."""
        parts, encoded = self._parts(work), work.batch.rows
        with pools.translate(self._name):
            if len(parts) == 1 and not (work.letters() or work.known_again() or work.replayed()):
                target, indices = parts[0]
                return await self._copy_rows(connection, target, [encoded[index] for index in indices])
            async with pools.transaction(connection):
                known = await self._known(connection, work)
                ended, count = known.ended, 0
                for target, indices in parts:
                    fresh = [encoded[index] for index in indices if index not in ended]
                    count += await self._copy_rows(connection, target, fresh)
                await self._letters.copy(connection, [*work.letters(), *known.letters.values()])
                await self._enter(connection, work)
        _mark_known(work, known)
        return count

    def _parts(self, work: BatchWrite) -> list[staged.Part]:
        """The messages of the next stretch, by where their rows go."""
        return staged.by_target(work.batch, work.next.indices, self._targets)

    async def _copy_rows(self, connection: Any, target: StreamTarget, encoded: Sequence[bytes]) -> int:
        """COPY into the table; where keys may be taken in an order in which no two transactions wait in a circle."""
        if self._experience.conflicts:
            apart = (row for blob in encoded for row in target.layout.take_apart(blob))
            encoded = [row.joined() for row in sorted(apart, key=rows.order)]
        return await _copy(connection, target, encoded)

    async def _staged(self, connection: Any, work: BatchWrite, *, lift_limit: bool) -> int:
        """The same stretch by way of a temporary table, which takes every key."""
        try:
            with pools.translate(self._name):
                async with pools.transaction(connection):
                    if lift_limit:
                        await connection.execute(conflicts.LIFT_DECOMPRESSION_LIMIT)
                    count, known, stagings = await self._stage_stretch(connection, work)
        except errors.ConflictError as error:
            # Not of the key, which staging minds: the operator's own unique index refuses a row.
            raise errors.PoisonError(str(error), error.sqlstate) from error
        except errors.DecompressionLimitError:
            if lift_limit:
                raise
            return await self._staged(connection, work, lift_limit=True)
        _mark_staged(work, stagings)
        _mark_known(work, known)
        return count

    async def _stage_stretch(
        self, connection: Any, work: BatchWrite
    ) -> tuple[int, Known, list[tuple[conflicts.Staging, set[bytes]]]]:
        """How many rows are new or changed, what was known, and under which keys each staging kept something."""
        known = await self._known(connection, work)
        parts = self._parts(work)
        stagings = await self._merged(work, parts, known)
        for layout in {target.layout.name: target.layout for target, _ in parts}.values():
            await connection.execute(conflicts.stage(layout, pooled=connection.pooled))
        inserted = [
            (staging, await staged.insert(connection, staging, self._max_row_bytes)) for staging in stagings
        ]
        await self._letters.insert(connection, [*work.letters(), *known.letters.values()])
        await self._enter(connection, work)
        return sum(len(kept) for _, kept in inserted), known, inserted

    async def _merged(
        self, work: BatchWrite, parts: Sequence[staged.Part], known: Known
    ) -> Sequence[conflicts.Staging]:
        """One row a key; of many bytes in a thread, which the event loop need not wait for."""
        arguments = work, parts, known.ended, self._max_row_bytes
        if work.batch.row_bytes_of(work.next.indices) > _LARGE_BYTES:
            return await asyncio.to_thread(staged.stagings, *arguments)
        return staged.stagings(*arguments)

    async def _known(self, connection: Any, work: BatchWrite) -> Known:
        """What is known of the messages of the next stretch, by their own ids or as replays."""
        known, batch = Known(), work.batch
        indices = work.next.indices if batch.ids else ()
        ids = {index: batch.ids[index] for index in indices if index in batch.ids}
        if ids:
            digests = {index: processed.digest(batch.messages[index].payload) for index in ids}
            refuse = [index for index in ids if batch.routes[index].message_id_reused == "dead_letter"]
            with pools.statement("INSERT INTO processed_messages"):
                entered = await processed.enter(connection, ids, digests, self._horizon, refuse)
            known.seen, known.reused = entered.seen, entered.reused
            known.letters = {index: _reused(batch, index) for index in entered.reused.intersection(refuse)}
        # Those whose ids are refused stay dead letters.
        replayed = {index: one for index, one in work.replayed().items() if index not in known.letters}
        if replayed:
            with pools.statement("UPDATE dead_letters"):
                known.seen |= await replays.enter(connection, replayed)
        return known

    async def _enter(self, connection: Any, work: BatchWrite) -> None:
        with pools.statement("INSERT INTO redelivery_ledger"):
            batch = work.batch
            await self._ledger.write(connection, work.next.id, batch.session, batch.turn, work.known_again())


class Known(msgspec.Struct):
    """What is known of messages of a stretch before its rows are written; indices.

    Attributes:
        seen: stored before.
        reused: they carry an id that another message had.
        letters: of those, dead letters where the stream says so.
    """

    seen: set[int] = msgspec.field(default_factory=set)
    reused: set[int] = msgspec.field(default_factory=set)
    letters: dict[int, DeadLetter] = msgspec.field(default_factory=dict)

    @property
    def ended(self) -> set[int]:
        """Those whose rows are not written."""
        return self.seen | self.letters.keys()


def _reused(batch: Batch, index: int) -> DeadLetter:
    ids = ", ".join(own for _, own in batch.ids[index])[:200]
    why = f"another message had the id {ids} before, with another payload (message_id_reused)"
    return batch.dead_letter_for(index, errors.MessageError(Reason.MESSAGE_ID_REUSED, why))


def _mark_known(work: BatchWrite, known: Known) -> None:
    """After the commit."""
    work.ended(dict.fromkeys(known.seen, Outcome.DUPLICATE))
    work.dead_lettered(known.letters)
    for stream, count in _by_stream(work, known.reused).items():
        events.message_ids_reused(stream=stream, count=count)


def _mark_staged(work: BatchWrite, stagings: Iterable[tuple[conflicts.Staging, set[bytes]]]) -> None:
    """After the commit."""
    for staging, kept in stagings:
        work.ended(staging.outcomes(kept))
        for stream, count in _by_stream(work, staging.overwritten).items():
            events.readings_overwritten(stream=stream, count=count, on_conflict=staging.on_conflict)


def _by_stream(work: BatchWrite, indices: Iterable[int]) -> Counter[str]:
    return Counter(work.batch.routes[index].stream_name for index in indices)


def _sample(work: BatchWrite, stretch: BatchRange) -> StoredRows | None:
    """The rows of a message of this stretch, and their table."""
    if not stretch.indices:
        return None
    index = stretch.indices[0]
    return work.batch.routes[index].table, work.batch.rows[index]


async def _copy(connection: Any, target: StreamTarget, encoded: Sequence[bytes]) -> int:
    return await staged.copy(connection, target.table, encoded, tuple(target.layout.columns))
