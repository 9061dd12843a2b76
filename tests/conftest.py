"""Fixtures for all tiers: real servers, migrated databases, and the logs of all that ran when a test fails.

Servers that are not on this machine make a test skip with the reason; named in GATEWAY_TEST_REQUIRE
(``mosquitto,timescaledb``), they make it fail; so do ``faketime``, ``mount``, ``netns`` and ``pips``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import hypothesis
import pytest

from tests.support import batching, prepared, processes, run
from tests.support.databases import Databases, Workshop
from tests.support.servers import (
    TIMESCALEDB_FOLDERS,
    TIMESERIES_DSN,
    GivenServer,
    MissingServerError,
    Mosquitto,
    PgBouncer,
    Postgres,
    Server,
    Timescale,
)
from tests.support.sql import scalar

REQUIRED = frozenset(os.environ.get("GATEWAY_TEST_REQUIRE", "").replace(",", " ").split())
ENGINES = ["postgres", pytest.param("timescaledb", marks=pytest.mark.timescaledb)]

S = TypeVar("S")


def pytest_configure(config: pytest.Config) -> None:
    """What the developer's own gateway is set to must not reach the tests, nor how busy the machine is, nor who waits.

    A run in the background has SIGINT ignored, and so would all that it starts.
    """
    assert os.environ[batching.BEGAN]  # workers inherit it
    if not hasattr(config, "workerinput"):
        run.begin()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("gateway", deadline=None)
    hypothesis.settings.load_profile("gateway")
    for name in [name for name in os.environ if name.startswith("GATEWAY__") or name == "GATEWAY_CONFIG"]:
        del os.environ[name]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For ``-n auto``: twice as many workers as cores, as tests wait; none for a few tests, which they would delay."""
    few = (
        config.option.keyword
        or config.option.lf
        or all("::" in name or Path(name).is_file() for name in config.args)
    )
    return 0 if few else 2 * len(os.sched_getaffinity(0))


def _made(name: str, make: Callable[[], S]) -> S:
    """The server, or the end of this test: failed where the server is required, skipped elsewhere."""
    try:
        return make()
    except MissingServerError as missing:
        lacking(name, str(missing))


def lacking(name: str, reason: str) -> NoReturn:
    """The end of this test for want of something: failed where that is required, skipped elsewhere."""
    if name in REQUIRED:
        pytest.fail(f"required by GATEWAY_TEST_REQUIRE, but {name}: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


# brokers --------------------------------------------------------------------------------


@pytest.fixture
def start_mosquitto() -> Iterator[Callable[..., Mosquitto]]:
    """Starts mosquittos with the arguments of :class:`Mosquitto`; all end with the test."""
    started: list[Mosquitto] = []

    def start(**arguments: Any) -> Mosquitto:
        started.append(_made("mosquitto", lambda: Mosquitto(**arguments)))
        return started[-1].start()

    yield start
    for broker in started:
        broker.close()


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A mosquitto of this test's own, with mosquitto's own window of 20: stop, kill, freeze it."""
    return start_mosquitto()


@pytest.fixture(scope="session")
def mosquitto_broker() -> Iterator[Mosquitto]:
    """One mosquitto for all who leave it running and use client ids and topics of their own."""
    with _made("mosquitto", Mosquitto) as broker:
        yield broker.start()


# database servers -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One plain PostgreSQL for all who leave it running."""
    with _made("postgres", lambda: prepared.server(Postgres)) as server:
        yield server.start()


@pytest.fixture(scope="session")
def timescaledb() -> Iterator[Server]:
    """One TimescaleDB for all who leave it running: the one given by the environment, or one of our own."""
    if dsn := os.environ.get(TIMESERIES_DSN):
        yield GivenServer(dsn)
        return
    with _made("timescaledb", lambda: prepared.server(Timescale)) as server:
        yield server.start()


@pytest.fixture(scope="session", params=ENGINES)
def server(request: pytest.FixtureRequest) -> Server:
    """Both engines in turn. Leave it running."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def start_server() -> Iterator[Callable[..., Postgres]]:
    """Starts servers of a test's own: ``start_server("timescaledb", durable=True, settings={…})``."""
    started: list[Postgres] = []

    def start(engine: str, **arguments: Any) -> Postgres:
        kind = {"postgres": Postgres, "timescaledb": Timescale}[engine]
        started.append(_made(engine, lambda: prepared.server(kind, **arguments)))
        return started[-1].start()

    yield start
    for server in started:
        server.close()


@pytest.fixture(params=ENGINES)
def own_server(request: pytest.FixtureRequest, start_server: Callable[..., Postgres]) -> Postgres:
    """Both engines in turn, each a server of this test's own with fsync on: stop, kill, freeze it."""
    return start_server(request.param, durable=True)


@pytest.fixture
def start_pgbouncer() -> Iterator[Callable[..., PgBouncer]]:
    """Starts poolers with the arguments of :class:`PgBouncer`; all end with the test."""
    started: list[PgBouncer] = []

    def start(server: Postgres, mode: str = "transaction", **arguments: Any) -> PgBouncer:
        started.append(_made("pgbouncer", lambda: PgBouncer(server, mode, **arguments)))
        return started[-1].start()

    yield start
    for pooler in started:
        pooler.close()


# databases ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def workshops() -> Iterator[Callable[[Server], Workshop]]:
    """The workshop of each shared server, so that its templates are made once a session."""
    made: dict[int, Workshop] = {}

    def workshop(server: Server) -> Workshop:
        return made.setdefault(id(server), Workshop(server))

    yield workshop
    for found in made.values():
        if isinstance(found.server, GivenServer):
            found.close()


@pytest.fixture
def databases(server: Server, workshops: Callable[[Server], Workshop]) -> Iterator[Databases]:
    """Migrated, empty databases of this test's own, on both engines."""
    workshop = workshops(server)
    made = workshop.migrated()
    yield made
    workshop.drop(made)


@pytest.fixture
def postgres_databases(postgres: Postgres, workshops: Callable[[Server], Workshop]) -> Iterator[Databases]:
    """Migrated, empty databases of this test's own on plain PostgreSQL only."""
    workshop = workshops(postgres)
    made = workshop.migrated()
    yield made
    workshop.drop(made)


@pytest.fixture
def blank_databases(server: Server, workshops: Callable[[Server], Workshop]) -> Iterator[Databases]:
    """Databases without any table, on both engines."""
    workshop = workshops(server)
    made = workshop.blank()
    yield made
    workshop.drop(made)


@pytest.fixture
def own_databases(own_server: Postgres) -> Databases:
    """Migrated databases on a server of this test's own."""
    return Workshop(own_server).migrated()


@pytest.fixture(autouse=True)
def _community(request: pytest.FixtureRequest) -> None:
    """Tests marked ``community`` run where the server's license is Timescale's."""
    if request.node.get_closest_marker("community") is None:
        return
    dsn = request.getfixturevalue("timescaledb").dsn()
    found = scalar(dsn, "SELECT current_setting('timescaledb.license', true)")
    if found != "timescale":
        pytest.skip(f"needs the Community edition; this server's license is {found!r}")


# logs -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its servers and daemons logged meanwhile."""
    report = yield
    if report.failed:
        for process in list(processes.LIVE):
            if text := process.tail(since=item.stash.get(_LOG_STARTS, {}).get(process.folder.name, 0)):
                report.sections.append((f"log of {process.name} ({process.folder.name})", text))
    return report


_LOG_STARTS = pytest.StashKey[dict[str, int]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember where the logs of the shared servers stand, so that a failure shows its own part."""
    item.stash[_LOG_STARTS] = {process.folder.name: process.log_size() for process in processes.LIVE}


def pytest_sessionfinish() -> None:
    """End what a broken fixture left running."""
    for process in list(processes.LIVE):
        process.close()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what a worker left running that was interrupted or crashed."""
    if not hasattr(config, "workerinput"):
        for command in run.end(TIMESCALEDB_FOLDERS):
            sys.stderr.write(f"left running, now killed: {command}\n")
