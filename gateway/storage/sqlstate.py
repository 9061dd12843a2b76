"""SQLSTATE decides what becomes of a failed write, here and nowhere else.

Three questions are asked of every code: is the row at fault (*poison*), may it be the statement's or the batch's own
fault, or is it an order of the server to all sessions (``of_all``)? What is not in a table is transient, and may be the
batch's own fault: such a batch is halved only while the server works, and no message is given up on but beside others
that are stored. Holding costs patience, letting go too early costs readings.

Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes"; the routines are those of PostgreSQL's source
that report the code, as the server names them beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from gateway import errors

NO_PARTITION = "23514 ExecFindPartition"
"""A violated check, by its code; but it is the table that has no place for the row, not the row that is wrong."""
MAKING_PARTITION = ("23514 gateway_without", "23514 ExecPartitionCheckEmitError")
"""A partition of the reading's day is being made, or was, in the midst of the statement; the next one finds it."""
NO_TRANSACTION_IDS = ("54000 GetNewTransactionId", "54000 GetNewMultiXactId")
"""Close to the wraparound of transaction ids, the server takes no writes at all."""
ROW_LEVEL_SECURITY = ("0A000 DoCopy", "0A000 copy_constraints_and_check")
"""COPY FROM into a table with row-level security, by a role that it holds for; PostgreSQL, TimescaleDB."""
_TOO_LARGE = (
    "54000 _bt_check_third_page", "54000 index_form_tuple", "54000 index_form_tuple_context",
    "54000 RelationGetBufferForTuple", "54000 raw_heap_insert", "54000 GinFormTuple", "54000 gistSplit",
    "54000 SpGistGetInnerTypeSize", "54000 spgdoinsert", "54000 brin_form_tuple", "54000 checkStringLen",
    "54000 convertJsonbArray", "54000 convertJsonbObject",
)  # fmt: skip
"""The row itself is too large for a page, an index or a jsonb."""

_VERDICTS: dict[str, type[errors.StoreError]] = {
    # Longest match wins.
    NO_PARTITION: errors.StandingError,
    **dict.fromkeys(MAKING_PARTITION, errors.TransientError),
    **dict.fromkeys((*NO_TRANSACTION_IDS, *ROW_LEVEL_SECURITY), errors.StandingError),
    **dict.fromkeys(_TOO_LARGE, errors.PoisonError),
    "23505": errors.ConflictError,
    "53400": errors.DecompressionLimitError,
    "22": errors.PoisonError,
    "23": errors.PoisonError,
    "44": errors.PoisonError,
    "25006": errors.StandingError,
    "28": errors.StandingError,
    "3D": errors.StandingError,
    "42": errors.StandingError,
}

_OF_ALL = {
    **dict.fromkeys((NO_PARTITION, *MAKING_PARTITION, *NO_TRANSACTION_IDS, *ROW_LEVEL_SECURITY), True),
    "08": True,  # the connection
    "25006": True,  # read-only
    "25P02": True,  # the session stands in a transaction that failed before
    "28": True,
    "3D": True,
    "40001": True,  # of two transactions one has to begin again; no row is at fault
    "40P01": True,
    "53100": True,  # the disk is full
    "53300": True,  # too many connections
    "55P03": True,  # the holder of the lock lets go some day
    "57P": True,  # shutdown, start, a crash, an idle session ended
    "58030": True,  # the disk fails
    "F0": True,  # the configuration file
}
"""What every statement would meet. False for all else."""

_REMEDIES = {
    NO_PARTITION: "attach its default partition again: ALTER TABLE … ATTACH PARTITION … DEFAULT",
    **dict.fromkeys(
        NO_TRANSACTION_IDS,
        "the server runs out of transaction ids and takes no writes: VACUUM the "
        "database that it names, and end old transactions and replication slots",
    ),
    **dict.fromkeys(
        ROW_LEVEL_SECURITY,
        "telemetry has row-level security, under which COPY is not possible: ALTER ROLE … BYPASSRLS for the writer, or "
        "ALTER TABLE … DISABLE ROW LEVEL SECURITY (readers have the views tenant_…)",
    ),
    "25006": "the server is read-only (a standby, or default_transaction_read_only is on): point the DSN at the "
    "primary, or make it writable",
    "28": "the server refuses our login: check user, password_file and pg_hba.conf",
    "3D": "the database does not exist: run `gateway db init`, then `gateway db upgrade`",
    "42501": "a privilege is missing: run `gateway db upgrade` as the owner of the tables, or `gateway db init`, "
    "which grant the roles what they need; GRANT it to any other login",
    "42P01": "a table is missing: run `gateway db upgrade`",
    "42703": "a column is missing: run `gateway db upgrade`",
    "42883": "a function is missing: run `gateway db upgrade`",
    "42": "the statement does not fit the schema: run `gateway db upgrade` and `gateway db status`",
}


_PASSING = ("08", "40", "53100", "53300", "55", "57P", "58")

T = TypeVar("T")


def _longest_prefix(table: Mapping[str, T], sqlstate: str, otherwise: T) -> T:
    prefixes = (sqlstate[:length] for length in range(len(sqlstate), 1, -1))
    return next((table[prefix] for prefix in prefixes if prefix in table), otherwise)


def classify(sqlstate: str) -> type[errors.StoreError]:
    """The error class that tells what to do about this SQLSTATE, with or without the server's routine behind it."""
    return _longest_prefix(_VERDICTS, sqlstate, errors.TransientError)


def passes(error: errors.StoreError) -> bool:
    """Whether waiting is known to help: a server that is away, starts, is full or busy; what every statement meets."""
    return error.of_all or error.sqlstate is None or error.sqlstate.startswith(_PASSING)


def of_all(sqlstate: str) -> bool:
    """Whether every statement would meet this; with the server's routine, as for :func:`classify`."""
    return _longest_prefix(_OF_ALL, sqlstate, False)


def remedy(sqlstate: str) -> str:
    """What an operator should run or mend; empty when waiting is all there is to do."""
    return _longest_prefix(_REMEDIES, sqlstate, "")
