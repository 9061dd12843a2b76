"""SQLSTATE decides what becomes of a failed write, here and nowhere else.

Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes". Anything that is not in the table is
transient: holding a batch too long costs patience, letting it go too early costs readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from gateway import errors

NO_PARTITION = "23514 ExecFindPartition"
"""A violated check, by its code; but it is the table that has no place for the row, not the row that is wrong."""

_VERDICTS: dict[str, type[errors.StoreError]] = {
    # Longest match wins.
    NO_PARTITION: errors.StandingError,
    "23505": errors.ConflictError,
    "53400": errors.DecompressionLimitError,
    "22": errors.PoisonError,
    "23": errors.PoisonError,
    "54": errors.PoisonError,
    "25006": errors.StandingError,
    "28": errors.StandingError,
    "3D": errors.StandingError,
    "42": errors.StandingError,
}

_REMEDIES = {
    NO_PARTITION: "attach its default partition again: ALTER TABLE … ATTACH PARTITION … DEFAULT",
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


def passes(sqlstate: str | None) -> bool:
    """Whether waiting is known to help: a server that is away, starts, is full or busy; None: no server answered."""
    return sqlstate is None or sqlstate.startswith(_PASSING)


def remedy(sqlstate: str) -> str:
    """What an operator should run or mend; empty when waiting is all there is to do."""
    return _longest_prefix(_REMEDIES, sqlstate, "")
