"""The fault matrix: which cells run, the servers that they break, and the table at the end.

``GATEWAY_FAULTS=all`` runs every fault with every combination of engine, MQTT version and readings with or without
timestamps, for as long as the matrix asks; otherwise each fault runs briefly and with one combination, in turn.
``GATEWAY_FAULTS_SEED`` repeats a session. ``GATEWAY_FAULTS_DAY`` says how many messages an edge box gathers.
``GATEWAY_SOAK_MINUTES`` lets the soak run, which no other session does.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REQUIRED, _made
from tests.support import fault_table, prepared
from tests.support.against_all import AttackCost
from tests.support.databases import Workshop
from tests.support.fault_cell import Combination, FaultCell
from tests.support.servers import TIMESCALEDB_ROOT, Mosquitto, Postgres, Server, Timescale
from tests.support.sql import execute, scalar

ALL = os.environ.get("GATEWAY_FAULTS") == "all"
SOAK_MINUTES = float(os.environ.get("GATEWAY_SOAK_MINUTES") or 0)
MakeCell = Callable[..., FaultCell]
Breakable = Callable[[str], Postgres]
SEED = int(os.environ.get("GATEWAY_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
ROWS: list[fault_table.FaultCellRow] = []
AGAINST_ALL: list[AttackCost] = []
"""What one could do to all others."""


# which cells ------------------------------------------------------------------------------


def engines() -> list[str]:
    """What this machine can have, or must."""
    both = ALL or TIMESCALEDB_ROOT in os.environ or "timescaledb" in REQUIRED
    return ["postgres", "timescaledb"] if both else ["postgres"]


def combinations() -> Iterator[Any]:
    """All combinations that this machine can have, listed like binary numbers."""
    for engine in engines():
        marks = [pytest.mark.timescaledb] if engine == "timescaledb" else []
        for protocol in ("5", "3.1.1"):
            for timestamps in (True, False):
                combination = Combination(engine, protocol, timestamps)
                yield pytest.param(combination, marks=marks, id=str(combination))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A fault is tried with all combinations, or those that have what its mark ``only`` says."""
    if "combination" in metafunc.fixturenames:
        marks = metafunc.definition.iter_markers("only")
        wanted = {field: value for mark in marks for field, value in mark.kwargs.items()}.items()
        chosen = [one for one in combinations() if wanted <= one.values[0]._asdict().items()]
        metafunc.parametrize("combination", chosen)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The short form: of each fault one combination, or as many as its mark ``combinations`` says (2)."""
    faults: dict[Path, dict[str, list[pytest.Item]]] = {}
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.faults)
        if isinstance(item, pytest.Function) and (combination := _combination(item)):
            fault = item.nodeid.replace(str(combination), "")
            faults.setdefault(item.path, {}).setdefault(fault, []).append(item)
    if not SOAK_MINUTES:
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
    if not ALL:
        left_out = {id(item) for path in faults for item in _left_out(path, list(faults[path].values()))}
        items[:] = [item for item in items if id(item) not in left_out]


def _combination(item: pytest.Function) -> Combination | None:
    found = item.callspec.params.get("combination") if hasattr(item, "callspec") else None
    return found if isinstance(found, Combination) else None


def _left_out(path: Path, faults: list[list[pytest.Item]]) -> Iterator[pytest.Item]:
    for number, tried in enumerate(faults):
        mark = tried[0].get_closest_marker("combinations")
        # Threes go through all eight; the second of two differs from the first in everything.
        at = (zlib.crc32(path.name.encode()) + 3 * number) % len(tried)
        kept = [tried[at], tried[-1 - at]][: mark.args[0] if mark else 1]
        yield from (item for item in tried if item not in kept)


# what they break --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def breakable() -> Iterator[Callable[[str], Postgres]]:
    """A server of each engine, with fsync, which all cells break in turn; it is whole again when one begins."""
    started: dict[str, Postgres] = {}

    def server(engine: str) -> Postgres:
        if engine not in started:
            kind = {"postgres": Postgres, "timescaledb": Timescale}[engine]
            started[engine] = _made(engine, lambda: prepared.server(kind, durable=True)).start()
        _mend(started[engine])
        return started[engine]

    yield server
    for found in started.values():
        found.close()


def _mend(server: Postgres) -> None:
    """Undo what a cell that failed left behind."""
    if not server.running:
        server.start()
    server.resume()
    if scalar(server.dsn(), "SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE '%.auto.conf'"):
        execute(server.dsn(), "ALTER SYSTEM RESET ALL")
        execute(server.dsn(), "SELECT pg_reload_conf()")


@pytest.fixture
def make_cell(
    combination: Combination,
    breakable: Callable[[str], Postgres],
    workshops: Callable[[Server], Workshop],
    start_mosquitto: Callable[..., Mosquitto],
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., FaultCell]]:
    """``make_cell(fault, settings, max_inflight=…)``: all but the daemon and the load runs."""
    server = breakable(combination.engine)
    workshop = workshops(server)
    databases = workshop.migrated()
    made: list[FaultCell] = []

    def make(fault: str, settings: Mapping[str, Any] | None = None, **broker: Any) -> FaultCell:
        cell = FaultCell(
            fault,
            combination,
            seed=SEED,
            chance=random.Random(f"{SEED} {request.node.nodeid}"),
            broker=start_mosquitto(**{"max_inflight": 1000, **broker}),
            databases=databases,
            settings=settings or {},
            record=_record,
        )
        made.append(cell)
        return cell

    yield make
    for cell in made:
        cell.close()
    _mend(server)
    workshop.drop(databases)


# the table --------------------------------------------------------------------------------


def _record(row: fault_table.FaultCellRow) -> None:
    ROWS.append(row)
    fault_table.save(ROWS)


def pytest_report_header() -> str:
    """The seed, first of all."""
    form = "all" if ALL else "short form"
    return f"faults: {form}, GATEWAY_FAULTS_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tables."""
    if AGAINST_ALL:
        terminalreporter.section("one against all")
        for found in AGAINST_ALL:
            terminalreporter.write_line(str(found))
    if not ROWS:
        return
    terminalreporter.section(f"fault matrix, GATEWAY_FAULTS_SEED={SEED}")
    for line in fault_table.aligned(ROWS):
        terminalreporter.write_line(line)
    terminalreporter.write_line(fault_table.summary(ROWS))
    terminalreporter.write_line(f"as JSON lines in {fault_table.REPORT}; on {fault_table.machine()}")
