"""The network fails: cut, half-open, slow, lossy, out of order."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.conftest import lacking
from tests.faults.conftest import ALL, SEED, MakeCell
from tests.support.netns import BadLine, NoNetworkError
from tests.support.proxy import Proxy

pytestmark = pytest.mark.mosquitto

CUT = 20 if ALL else 5
BAD = 30 if ALL else 8
SILENT = 90 if ALL else 12
IMPATIENT = {"databases": {"timeseries": {"command_timeout": 3}, "metadata": {"command_timeout": 3}}}
"""What hangs is left after 3 s; the default of a minute would need as long a test."""


@pytest.fixture
def line() -> Iterator[BadLine]:
    """A host of its own for the daemon, and a bad line to it."""
    try:
        with BadLine(random.Random(SEED)) as line:
            yield line
    except NoNetworkError as missing:
        lacking("netns", str(missing))


@pytest.mark.parametrize("to", ["broker", "database"])
def test_cut(make_cell: MakeCell, to: str) -> None:
    """Connections break (RST) and none can be made: held, and all goes on afterwards."""
    cell = make_cell(f"network to the {to} cut, {CUT} s")
    with Proxy(getattr(cell, {"broker": "broker", "database": "server"}[to]).port) as proxy:
        cell.by_way_of(**{to: proxy})
        cell.start()
        cell.stored(500)
        proxy.refusing = True
        proxy.cut()
        cell.unready({"broker": "mqtt", "database": "timeseries"}[to], state="waiting")
        cell.lasts(CUT)
        cell.recovers(lambda: setattr(proxy, "refusing", False))
        cell.prove()


@pytest.mark.parametrize("to", ["broker", "database"])
def test_half_open(make_cell: MakeCell, to: str) -> None:
    """Connections die without a word: the daemon notices by itself, and makes new ones."""
    cell = make_cell(f"connections to the {to} half-open, no RST", IMPATIENT)
    with Proxy(getattr(cell, {"broker": "broker", "database": "server"}[to]).port) as proxy:
        cell.by_way_of(**{to: proxy})
        cell.start()
        cell.stored(500)
        count = {"broker": "reconnects", "database": "store_errors"}[to]
        cell.recovers(proxy.mute, noticed=lambda look: look.figures[count] > 0)
        cell.prove()


@pytest.mark.parametrize("bad", ["delay", "loss", "overtaken"])
def test_a_bad_line(make_cell: MakeCell, line: BadLine, bad: str) -> None:
    """A line that is slow, lossy or out of order costs time only."""
    what, share = {
        "delay": ("200 ms delay each way", 0.2),
        "loss": ("5 % of packets lost", 0.05),
        "overtaken": ("25 % of packets overtaken", 0.25),
    }[bad]
    cell = make_cell(f"line to broker and database: {what}, {BAD} s")
    with Proxy(cell.broker.port, host=line.here) as broker, Proxy(cell.server.port, host=line.here) as server:
        cell.by_way_of(broker=broker, database=server)
        cell.on(line)
        cell.start()
        cell.stored(500)
        setattr(line, bad, share)
        cell.lasts(BAD)
        cell.recovers(lambda: setattr(line, bad, 0.0))
        cell.prove()


def test_a_silent_line(make_cell: MakeCell, line: BadLine) -> None:
    """No packet passes and nobody is told: held, and all goes on when packets pass again."""
    cell = make_cell(f"line to broker and database silent, {SILENT} s", IMPATIENT)
    with Proxy(cell.broker.port, host=line.here) as broker, Proxy(cell.server.port, host=line.here) as server:
        cell.by_way_of(broker=broker, database=server)
        cell.on(line)
        cell.start()
        cell.stored(500)
        line.silent = True
        cell.lasts(SILENT)
        cell.recovers(lambda: setattr(line, "silent", False))
        cell.prove()
