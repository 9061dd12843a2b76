"""SQLSTATE decides what becomes of a failed write."""

from __future__ import annotations

import re
import socket

import asyncpg
import pytest

from gateway import errors
from gateway.storage import pools
from gateway.storage.sqlstate import classify, of_all, remedy

OF_ALL = [
    "08000", "08003", "08006", "25P02", "40001", "40P01", "53100", "53300", "55P03", "57P01", "57P02", "57P03", "57P05",
    "58030", "F0000",
]  # fmt: skip
"""Transient, and everybody meets it: nothing is halved."""
OF_ITS_OWN = [
    "09000", "0A000", "0Z000", "21000", "24000", "25P03", "25P04", "26000", "2F000", "34000", "38000", "39000", "40002",
    "53000", "53200", "54000", "54001", "54011", "54023", "55000", "55006", "57000", "57014", "58P01", "72000", "HV000",
    "P0001", "P0004", "XX000", "XX001", "XX002", "ZZ999", "", "2",
]  # fmt: skip
"""Transient, and it may be this batch alone that meets it: halved when it persists while the server works."""
TRANSIENT = [*OF_ALL, *OF_ITS_OWN]
POISON = [
    "22000", "22001", "22003", "22007", "22008", "22021", "22P02", "22P05", "23000", "23001", "23502", "23503", "23514",
    "23P01", "44000", "54000 index_form_tuple_context", "54000 _bt_check_third_page", "54000 RelationGetBufferForTuple",
    "54000 checkStringLen",
]  # fmt: skip
STANDING = ["25006", "28000", "28P01", "3D000", "42501", "42601", "42703", "42804", "42883", "42P01", "42P10"]


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (TRANSIENT, errors.TransientError),
        (POISON, errors.PoisonError),
        (STANDING, errors.StandingError),
        (["23505"], errors.ConflictError),
        (["53400"], errors.DecompressionLimitError),
    ],
)
def test_the_verdict(states: list[str], verdict: type[errors.StoreError]) -> None:
    """Held, isolated, waited for, staged: by the longest code that matches; what is unknown passes by itself."""
    assert {state: classify(state) for state in states} == dict.fromkeys(states, verdict)


def test_a_missing_partition_is_no_fault_of_the_row() -> None:
    """PostgreSQL gives it the code of a violated check; its routine tells them apart."""
    assert classify("23514 ExecFindPartition") is errors.StandingError
    assert "ATTACH PARTITION" in remedy("23514 ExecFindPartition")
    assert classify("23514 ExecConstraints") is errors.PoisonError
    assert classify("23505 _bt_check_unique") is errors.ConflictError


@pytest.mark.parametrize("cause", ["23514 gateway_without_20270101", "23514 ExecPartitionCheckEmitError"])
def test_a_partition_in_the_making_is_waited_for(cause: str) -> None:
    """A violated check too, and of no reading's fault: the next statement finds the partition."""
    assert classify(cause) is errors.TransientError
    assert of_all(cause)


def test_every_code_of_the_driver_has_a_verdict() -> None:
    """And none of them turns readings into dead letters at once but refused data: classes 22, 23 and 44."""
    known = {
        found.sqlstate
        for found in (getattr(asyncpg.exceptions, name) for name in asyncpg.exceptions.__all__)
        if getattr(found, "sqlstate", None)
    }
    assert len(known) > 200
    poison = {state for state in known if classify(state) is errors.PoisonError}
    assert {state[:2] for state in poison} == {"22", "23", "44"}
    everybody = {state for state in known if of_all(state)}
    assert {state[:2] for state in everybody} == {"08", "25", "28", "3D", "40", "53", "55", "57", "58", "F0"}
    assert not everybody & poison


@pytest.mark.parametrize("state", OF_ALL)
def test_what_everybody_meets(state: str) -> None:
    """The server is away, full, or being switched over: no batch would fare better in halves."""
    assert of_all(state)


@pytest.mark.parametrize("state", [*OF_ITS_OWN, *POISON, "42501", "42P01"])
def test_what_may_be_of_one_batch(state: str) -> None:
    """A trigger, a frozen chunk, a limit: other batches may be stored."""
    assert not of_all(state)


@pytest.mark.parametrize("routine", ["GetNewTransactionId", "GetNewMultiXactId"])
def test_no_more_transaction_ids_is_an_order_to_everybody(routine: str) -> None:
    """54000 as a row that is too large has it; the server's routine tells them apart, and what to run is said."""
    assert classify(f"54000 {routine}") is errors.StandingError
    assert of_all(f"54000 {routine}")
    assert "VACUUM" in remedy(f"54000 {routine}")


@pytest.mark.parametrize("state", STANDING)
def test_what_must_be_mended_says_how(state: str) -> None:
    """A command to run, or a setting to change."""
    assert re.search(r"`gateway db \w+`|GRANT|pg_hba|writable", remedy(state))


@pytest.mark.parametrize("state", [*TRANSIENT, "23505"])
def test_what_passes_by_itself_asks_for_nothing(state: str) -> None:
    """Nobody is sent to mend what needs no mending."""
    assert remedy(state) == ""


def driver_error(state: str, text: str) -> asyncpg.PostgresError:
    """As the driver makes it of the server's answer."""
    found: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": state, "M": text, "S": "ERROR"})
    return found


def test_a_translated_error_names_the_database_the_trouble_and_the_remedy() -> None:
    """Fit for an operator's eyes, and for the driver's own text nothing is lost."""
    error = pools.translate_error(driver_error("42P01", 'relation "telemetry" does not exist'), "timeseries")
    assert isinstance(error, errors.StandingError)
    assert str(error).startswith('timeseries: relation "telemetry" does not exist (SQLSTATE 42P01); ')
    assert "gateway db upgrade" in str(error)
    assert error.sqlstate == "42P01"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        ConnectionResetError(),
        TimeoutError(),
        EOFError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_server_that_is_away_passes_by_itself(error: Exception) -> None:
    """Whatever the driver calls it; the text is never empty."""
    found = pools.translate_error(error, "metadata")
    assert type(found) is errors.TransientError
    assert re.fullmatch(r"metadata: .+", str(found))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 5432)"),
            "connection refused: is the server",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            "cannot resolve the host name: Name or service not known",
        ),
        (FileNotFoundError(2, "No such file or directory"), "no server at this unix socket"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (OSError("Multiple exceptions: …"), "Multiple exceptions: …"),
    ],
)
def test_errors_of_the_network_are_told_in_words(error: OSError, says: str) -> None:
    """Not by the operating system's numbers."""
    assert str(pools.translate_error(error, "metadata at db:5432")).startswith(f"metadata at db:5432: {says}")


@pytest.mark.parametrize("error", [ZeroDivisionError(), LookupError("x"), errors.UsageError("x")])
def test_what_is_no_trouble_of_a_database_is_left_alone(error: Exception) -> None:
    """A defect of ours must not be waited for."""
    assert pools.translate_error(error, "metadata") is None
    with pytest.raises(type(error)), pools.translate("metadata"):
        raise error


def test_nothing_is_translated_twice() -> None:
    """Doors within doors: the first one's words stay."""
    first = errors.PoisonError("timeseries: no", "22000")
    with pytest.raises(errors.PoisonError) as caught, pools.translate("other"):
        raise first
    assert caught.value is first


def test_the_statement_that_failed_is_named() -> None:
    """A text of the server's such as "cannot execute COPY FROM" does not say on what."""
    failed = driver_error("25006", "cannot execute COPY FROM in a read-only transaction")
    with (
        pytest.raises(errors.StandingError) as told,
        pools.translate("timeseries"),
        pools.statement("COPY telemetry"),
    ):
        raise failed
    assert str(told.value).startswith("timeseries: COPY telemetry: cannot execute COPY FROM in a read-only")
