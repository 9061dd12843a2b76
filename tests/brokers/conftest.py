"""The broker matrix: which brokers run, one after another, and the table at the end.

``GATEWAY_BROKERS`` names some of them (``mosquitto,NATS``). One that is not there has its cells skipped, and is named;
with ``brokers`` in GATEWAY_TEST_REQUIRE they fail.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REQUIRED, lacking
from tests.support import broker_table, fault_table
from tests.support.broker_cell import BrokerCell
from tests.support.broker_table import PROTOCOLS, BrokerCellRow
from tests.support.brokers import KINDS, AnyBroker
from tests.support.databases import Databases
from tests.support.servers import MissingServerError

CHOSEN = os.environ.get("GATEWAY_BROKERS", "").lower().replace(",", " ").split()
ROWS: list[BrokerCellRow] = []
NOT_RUN: dict[str, str] = {}
NUMBERS = itertools.count(1)
MakeCell = Callable[..., BrokerCell]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every cell is tried with each broker, at each protocol level that it speaks."""
    if "level" in metafunc.fixturenames:
        pairs = [
            pytest.param(kind, level, id=f"{kind.title}-{PROTOCOLS[level]}")
            for kind in KINDS
            if not CHOSEN or kind.title.lower() in CHOSEN
            for level in kind.speaks
        ]
        metafunc.parametrize(("kind_of_broker", "level"), pairs)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All cells of one broker, then those of the next: it is started once."""
    ours = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in ours:
        item.add_marker(pytest.mark.brokers)
    order = {kind: number for number, kind in enumerate(KINDS)}
    ours.sort(key=lambda item: order[item.callspec.params["kind_of_broker"]])  # type: ignore[attr-defined]
    items[:] = [item for item in items if item not in set(ours)] + ours


class Brokers:
    """Started when they are asked for; those of another kind end then."""

    def __init__(self) -> None:
        self._running: dict[tuple[type[AnyBroker], bool], AnyBroker] = {}

    def of(self, kind: type[AnyBroker], *, closed: bool = False) -> AnyBroker:
        """A broker at work."""
        for key in [key for key in self._running if key[0] is not kind]:
            self._running.pop(key).close()
        if (kind, closed) not in self._running:
            self._running[kind, closed] = kind(closed=closed)
        broker = self._running[kind, closed]
        if not broker.running:
            broker.start()
        return broker

    def close(self) -> None:
        """End all."""
        for broker in self._running.values():
            broker.close()


@pytest.fixture(scope="session")
def brokers() -> Iterator[Brokers]:
    """For the whole session."""
    found = Brokers()
    yield found
    found.close()


@pytest.fixture
def make_cell(
    kind_of_broker: type[AnyBroker], level: int, brokers: Brokers, postgres_databases: Databases
) -> Iterator[MakeCell]:
    """``make_cell(name, kind="timed", closed=…, settings=…)``: all but the daemon runs."""
    made: list[BrokerCell] = []

    def make(name: str, *, closed: bool = False, **arguments: Any) -> BrokerCell:
        try:
            broker = brokers.of(kind_of_broker, closed=closed)
        except MissingServerError as missing:
            NOT_RUN[kind_of_broker.title] = str(missing)
            lacking("brokers" if "brokers" in REQUIRED else kind_of_broker.title.lower(), str(missing))
        place = f"matrix{next(NUMBERS)}"
        made.append(
            BrokerCell(name, broker, postgres_databases, level, place=place, record=_record, **arguments)
        )
        return made[-1]

    yield make
    for cell in made:
        cell.close()


def _record(row: BrokerCellRow) -> None:
    ROWS.append(row)
    fault_table.save(ROWS, broker_table.REPORT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tables, and who is not in them."""
    if ROWS:
        terminalreporter.section("broker matrix")
        for line in broker_table.report(ROWS):
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"as JSON lines in {broker_table.REPORT}")
    for name, reason in NOT_RUN.items():
        terminalreporter.write_line(f"not run: {name}: {reason}")
