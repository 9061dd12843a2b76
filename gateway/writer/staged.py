"""The same stretch by way of a temporary table, which takes every key; and COPY itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

from gateway import errors
from gateway.storage import pools
from gateway.writer import conflicts, rows, slots
from gateway.writer.work import BatchWrite


def stagings(work: BatchWrite, seen: Collection[int], max_row_bytes: int) -> Iterable[conflicts.Staging]:
    """The rows of the next stretch, but for what was seen before, grouped by what is to be done about conflicts.

    Raises:
        RowTooLargeError: some of them must not be merged.
    """
    batch, stretch, letters = work.batch, work.next, work.replayed()
    # An equal reading of the same receive time is another process's, unless an earlier try may have been committed.
    first_try = not (stretch.uncertain or batch.spooled)
    found: dict[str, conflicts.Staging] = {}
    # Who waited for a look-up may have been received before its neighbours.
    for index in sorted(stretch.indices, key=batch.received_us.__getitem__):
        if index in seen:
            continue
        policy = "distinct" if index in batch.unkeyed else batch.origins[index].on_conflict
        if policy not in found:
            found[policy] = conflicts.Staging(policy, max_row_bytes)
        found[policy].add(
            index, batch.rows[index], batch.unkeyed.get(index) if first_try or index in letters else None
        )
    if too_large := {index: size for one in found.values() for index, size in one.too_large.items()}:
        raise conflicts.RowTooLargeError(too_large)
    # Those that step aside come last: they can only give way to what is there already.
    return sorted(found.values(), key=lambda staging: staging.on_conflict == "distinct")


async def insert(connection: Any, staging: conflicts.Staging, max_row_bytes: int) -> set[bytes]:
    """Stage, insert; the keys under which something new is kept."""
    await _stage(connection, staging)
    if staging.on_conflict == "distinct":
        if taken := await _taken(connection, staging):
            await slots.step_aside(connection, staging, taken)
            await _stage(connection, staging)
    else:
        await _meet(connection, staging, max_row_bytes)
    with pools.statement("INSERT INTO telemetry"):
        kept = conflicts.keys(await connection.fetch(conflicts.INSERTS[staging.on_conflict]))
    if staging.never_stored - kept:
        raise errors.TransientError(
            "timeseries: the time of a reading was taken by another session just now: once more"
        )
    return kept


async def _meet(connection: Any, staging: conflicts.Staging, max_row_bytes: int) -> None:
    """See what the staged rows meet in the table.

    Raises:
        RowTooLargeError: merged, some of them would be too large.
    """
    if staging.on_conflict == "merge":
        met = await connection.fetch(conflicts.MERGED, max_row_bytes)
    else:
        met = await connection.fetch(conflicts.OVERWRITTEN)
    large = [record for record in met if record["size"]]
    if large:
        sizes = {key: record["size"] for record in large for key in conflicts.keys([record])}
        raise conflicts.RowTooLargeError(staging.contributors(sizes))
    staging.met(conflicts.keys(met))


async def _taken(connection: Any, staging: conflicts.Staging) -> set[bytes]:
    """The staged keys that other readings hold; of a reading that was never stored, any reading is another."""
    taken = conflicts.keys(await connection.fetch(conflicts.TAKEN_BY_OTHERS))
    if staging.never_stored:
        taken |= staging.never_stored & conflicts.keys(await connection.fetch(conflicts.TAKEN))
    return taken


async def _stage(connection: Any, staging: conflicts.Staging) -> None:
    await connection.execute(conflicts.EMPTY_STAGE)
    await copy(connection, "gateway_staged", [row.joined() for row in staging.rows.values()])


async def copy(
    connection: Any, table: str, encoded: Sequence[bytes], columns: Sequence[str] = rows.COLUMNS
) -> int:
    """COPY these rows; how many there were."""
    if not encoded:
        return 0
    with pools.statement(f"COPY {table}"):
        status = await connection.copy_to_table(
            table, source=_stream(encoded), columns=columns, format="binary"
        )
    return int(status.rpartition(" ")[2])


async def _stream(encoded: Sequence[bytes]) -> AsyncIterator[bytes]:
    """One binary COPY stream, in one piece."""
    yield b"".join((rows.HEADER, *encoded, rows.TRAILER))
