"""The same stretch by way of a temporary table, which takes every key; and COPY itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any

from gateway import errors
from gateway.batches import Batch
from gateway.storage import pools
from gateway.writer import conflicts, rows, slots
from gateway.writer.layouts.base import StreamTarget
from gateway.writer.work import BatchWrite

Part = tuple[StreamTarget, Sequence[int]]
"""Where messages of a batch go, and which, by index."""


def by_target(batch: Batch, indices: Sequence[int], targets: Mapping[str, StreamTarget]) -> list[Part]:
    """These messages, by where their rows go; in one order, so that no two transactions wait in a circle.

    Args:
        targets: all that there are, by table. Of a single one no message is asked.
    """
    if len(targets) == 1:
        return [(target, indices) for target in targets.values()]
    found: dict[str, list[int]] = {}
    for index in indices:
        found.setdefault(batch.routes[index].table, []).append(index)
    return [(targets[table], found[table]) for table in sorted(found)]


def stagings(
    work: BatchWrite, parts: Iterable[Part], seen: Collection[int], max_row_bytes: int
) -> Sequence[conflicts.Staging]:
    """The rows of the next stretch, grouped by where they go and by what is to be done about conflicts.

    Args:
        parts: the stretch, as :func:`by_target` parts it.
        seen: what was seen before is left out.

    Raises:
        RowTooLargeError: some of them must not be merged.
    """
    batch, letters = work.batch, work.replayed()
    # An equal reading of the same receive time is another process's, unless an earlier try may have been committed.
    first_try = not (work.next.uncertain or batch.spooled)
    found: dict[tuple[StreamTarget, conflicts.Policy], conflicts.Staging] = {}
    for target, indices in parts:
        # Who waited for a look-up may have been received before its neighbours.
        for index in sorted(indices, key=batch.received_us.__getitem__):
            if index in seen:
                continue
            policy: conflicts.Policy = (
                "distinct" if index in batch.untimed else batch.routes[index].on_conflict
            )
            if (target, policy) not in found:
                found[target, policy] = conflicts.Staging(target, policy, max_row_bytes)
            dated = batch.untimed.get(index) if first_try or index in letters else None
            found[target, policy].add(index, batch.rows[index], dated)
    if too_large := {index: size for one in found.values() for index, size in one.too_large.items()}:
        raise conflicts.RowTooLargeError(too_large)
    # Those that are bumped come last: they can only give way to what is there already.
    return sorted(found.values(), key=lambda staging: staging.on_conflict == "distinct")


async def insert(connection: Any, staging: conflicts.Staging, max_row_bytes: int) -> set[bytes]:
    """Stage, insert; the keys under which something new is kept."""
    await _stage(connection, staging)
    if staging.on_conflict == "distinct":
        if taken := await _taken(connection, staging):
            await slots.bump(connection, staging, taken)
            await _stage(connection, staging)
    else:
        await _meet(connection, staging, max_row_bytes)
    target = staging.target
    with pools.statement(f"INSERT INTO {target.table}"):
        kept = conflicts.keys(await connection.fetch(target.sql.inserts[staging.on_conflict]))
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
    sql = staging.target.sql
    if staging.on_conflict == "merge":
        met = await connection.fetch(sql.merged, max_row_bytes)
    else:
        met = await connection.fetch(sql.overwritten)
    large = [record for record in met if record["size"]]
    if large:
        sizes = {key: record["size"] for record in large for key in conflicts.keys([record])}
        raise conflicts.RowTooLargeError(staging.contributors(sizes))
    staging.met(conflicts.keys(met))


async def _taken(connection: Any, staging: conflicts.Staging) -> set[bytes]:
    """The staged keys that other readings hold; of a reading that was never stored, any reading is another."""
    sql = staging.target.sql
    taken = conflicts.keys(await connection.fetch(sql.taken_by_others))
    if staging.never_stored:
        taken |= staging.never_stored & conflicts.keys(await connection.fetch(sql.taken))
    return taken


async def _stage(connection: Any, staging: conflicts.Staging) -> None:
    layout = staging.target.layout
    await connection.execute(f"DELETE FROM {layout.staged}")
    await copy(
        connection, layout.staged, [row.joined() for row in staging.rows.values()], tuple(layout.columns)
    )


async def copy(connection: Any, table: str, encoded: Sequence[bytes], columns: Sequence[str]) -> int:
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
