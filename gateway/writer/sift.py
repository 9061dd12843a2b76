"""Which of a stretch's messages the database refuses, found out in one exchange.

Each is tried by itself, in a block of its own, and nothing is kept. So it takes as long as n inserts however many are
refused, where halving takes two transactions for each; and what is not refused goes on together.

Deferred constraints are checked in each block, too. What fails in the transaction of the rows for another reason than
its rows (an id that is too long, a limit on transactions) is not found here: then it is halved.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from gateway import errors
from gateway.storage import pools, sqlstate
from gateway.writer import staged
from gateway.writer.layouts.base import Layout, StreamTarget

MOST_MESSAGES, MOST_BYTES = 1024, 2**20
"""More are halved first: others go on between two of these."""

_TABLES = """
CREATE TEMPORARY TABLE gateway_tried (message integer, {typed_columns});
CREATE TEMPORARY TABLE gateway_failing (message integer, sqlstate text, violated text, said text)
"""
_TRY = """
DO $$
DECLARE
    one integer;
    state text;
    violated text;
    said text;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
    FOR one IN SELECT DISTINCT message FROM gateway_tried LOOP
        BEGIN
            INSERT INTO {table} ({columns}) SELECT {columns} FROM gateway_tried WHERE message = one;
            RAISE EXCEPTION USING ERRCODE = 'GW001';  -- taken back: the next one meets the table as it was
        EXCEPTION WHEN SQLSTATE 'GW001' OR unique_violation THEN
            NULL;
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS
                state = RETURNED_SQLSTATE, violated = CONSTRAINT_NAME, said = MESSAGE_TEXT;
            INSERT INTO gateway_failing VALUES (one, state, violated, said);
        END;
    END LOOP;
END
$$
"""
_head = struct.Struct(">hii").pack
_CHECK_VIOLATION = "23514"


async def failing(
    connection: Any, target: StreamTarget, encoded: Mapping[int, bytes]
) -> dict[int, errors.StoreError]:
    """The messages that fail by themselves, and why, by index.

    Args:
        target: where their rows go.
        encoded: all rows of each message, by index.

    Raises:
        StoreError: it cannot be found out here.
    """
    layout = target.layout
    with pools.translate("timeseries"):
        async with pools.tried_out(connection):
            await connection.execute(_TABLES.format(typed_columns=layout.typed_columns))
            await staged.copy(
                connection, "gateway_tried", list(_numbered(layout, encoded)), ("message", *layout.columns)
            )
            await connection.execute("CREATE INDEX ON gateway_tried (message)")
            await connection.execute(_TRY.format(table=target.identifier, columns=", ".join(layout.columns)))
            found = await connection.fetch("SELECT message, sqlstate, violated, said FROM gateway_failing")
    judged = ((record["message"], _error(target, record)) for record in found)
    return {index: error for index, error in judged if error is not None}


def _numbered(layout: Layout, encoded: Mapping[int, bytes]) -> Iterator[bytes]:
    """The rows with the index of their message before them."""
    columns = 1 + len(layout.columns)
    for index, blob in encoded.items():
        for row in layout.take_apart(blob):
            yield _head(columns, 4, index) + row.joined()[2:]


def _error(target: StreamTarget, record: Any) -> errors.StoreError | None:
    """What the server said; None where that may be due to the table (no partition) or to a server in trouble."""
    state, violated = record["sqlstate"], record["violated"] or ""
    if state == _CHECK_VIOLATION and (not violated or violated.startswith("gateway_")):
        return None
    if sqlstate.of_all(state):
        return None
    text = f"timeseries: INSERT INTO {target.table}: {record['said']} (SQLSTATE {state})"
    return sqlstate.classify(state)(text, state, of_all=False)
