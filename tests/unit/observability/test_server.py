"""The daemon's HTTP server, asked over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__, errors
from gateway.observability import doorkeeper
from gateway.observability.server import Server
from gateway.observability.status import StatusReport
from gateway.outcomes import Outcome, Tally
from gateway.settings import ObservabilitySettings
from tests.support.reports import a_report
from tests.support.waiting import eventually_async, free_port

Ask = Callable[[str], "contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]"]


@contextlib.asynccontextmanager
async def serving(report: StatusReport) -> AsyncIterator[Ask]:
    """A server of this report, and how to ask it."""
    port = free_port()
    server = Server(ObservabilitySettings(port=port), report)
    await server.open()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session.get
    finally:
        await server.close()


async def test_live_as_long_as_the_loop_runs() -> None:
    """/live answers 200 whatever the components do."""
    report = a_report()
    report.health.component("broker").failed("certificate expired")
    async with serving(report) as ask, ask("/live") as answer:
        assert answer.status == 200


async def test_ready_tells_state_and_last_error_of_each_component() -> None:
    """/ready is 503 until every component works, names what it waits for, and remembers the last error."""
    report = a_report()
    report.health.component("timeseries").ready()
    report.health.component("broker").waiting("127.0.0.1:1883: connection refused")
    async with serving(report) as ask:
        async with ask("/ready") as answer:
            assert answer.status == 503
            said = await answer.json()
        assert said["components"]["broker"]["state"] == "waiting"
        assert said["components"]["broker"]["last_error"] == "127.0.0.1:1883: connection refused"
        assert said["components"]["timeseries"]["state"] == "ready"
        report.health.component("broker").ready()
        async with ask("/ready") as answer:
            assert answer.status == 200
            said = await answer.json()
    assert said["ready"] is True
    assert said["components"]["broker"]["last_error"] == "127.0.0.1:1883: connection refused"


async def test_stopping_is_not_ready() -> None:
    """Once the stop has begun /ready is 503, so that nobody counts on this daemon."""
    report = a_report()
    report.health.component("broker").ready()
    report.health.stopping = True
    async with serving(report) as ask, ask("/ready") as answer:
        assert answer.status == 503


async def scrape(report: StatusReport) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of /metrics, by name and labels, read by Prometheus' own parser."""
    async with serving(report) as ask, ask("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await answer.text()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def labels(**names: str) -> frozenset[tuple[str, str]]:
    """Labels as :func:`scrape` has them."""
    return frozenset(names.items())


async def test_metrics_tell_the_books() -> None:
    """/metrics has the conservation counters per stream; each name ends in _total, and once."""
    report = a_report()
    report.health.component("broker").ready()
    samples = await scrape(report)
    stream = labels(stream="telemetry")
    assert samples["gateway_messages_received_total", stream] == 10
    assert samples["gateway_messages_in_flight", stream] == 2
    assert samples["gateway_messages_unaccounted", stream] == 0
    settled = {o: samples["gateway_messages_settled_total", stream | labels(outcome=o)] for o in Outcome}
    assert settled == {"stored": 5, "duplicate": 1, "spooled": 0, "dead_lettered": 2, "ignored": 0}
    assert samples["gateway_backlog_bytes", labels()] == 230
    assert samples["gateway_component_ready", labels(component="broker")] == 1
    assert samples["gateway_build_info", labels(version=__version__)] == 1
    assert not [name for name, _ in samples if name.endswith("_total_total")]


async def test_metrics_show_books_that_do_not_balance() -> None:
    """A message that nobody accounts for shows in a gauge that is 0 otherwise."""
    samples = await scrape(a_report(received=11))
    assert samples["gateway_messages_unaccounted", labels(stream="telemetry")] == 1


async def test_status_tells_everything_at_once() -> None:
    """/status has the books per stream and in total, whether they balance, the components and the figures."""
    report = a_report()
    report.health.component("broker").ready()
    async with serving(report) as ask, ask("/status") as answer:
        said: dict[str, Any] = await answer.json()
    book = {
        "received": 10,
        "stored": 5,
        "duplicate": 1,
        "spooled": 0,
        "dead_lettered": 2,
        "ignored": 0,
        "in_flight": 2,
        "balance": 0,
        "qos0": 0,
    }
    assert said["streams"] == {"telemetry": book}
    assert said["total"] == book
    assert said["balanced"] is True
    assert said["ready"] is True
    assert said["version"] == __version__
    assert 0 <= said["uptime_seconds"] < 60
    assert said["figures"]["registry_entries"] == 7


async def test_faults_that_cancel_out_are_not_a_balance() -> None:
    """One stream short by one and another over by one is no balance, though their sum is."""
    report = a_report(received=11)
    other = Tally()
    other.settled[Outcome.STORED] = 1
    both = StatusReport(
        health=report.health,
        tallies={**report.tallies, "other": other},
        in_flight=report.in_flight,
        gauges={},
    )
    said = both.as_dict()
    assert said["total"]["balance"] == 0
    assert said["balanced"] is False


async def test_an_unknown_path_is_not_found() -> None:
    """Only the four pages exist, and none takes a POST."""
    async with serving(a_report()) as ask, ask("/admin") as answer:
        assert answer.status == 404


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


async def test_a_taken_port_stops_the_start(taken: int) -> None:
    """A port in use is a StartError that names the address and the option."""
    server = Server(ObservabilitySettings(port=taken), a_report())
    expected = (
        rf"127\.0\.0\.1:{taken} for health and metrics: Address already in use; set observability\.port"
    )
    with pytest.raises(errors.StartError, match=expected):
        await server.open()
    await server.close()


async def test_an_address_of_another_host_stops_the_start() -> None:
    """An address that is not ours is a StartError that names the option."""
    server = Server(ObservabilitySettings(listen="192.0.2.1", port=free_port()), a_report())
    with pytest.raises(errors.StartError, match=r"192\.0\.2\.1.*observability\.listen"):
        await server.open()


def listening() -> set[int]:
    """Ports that this process listens on."""
    connections = psutil.Process().net_connections("inet")
    return {found.laddr.port for found in connections if found.status == psutil.CONN_LISTEN}


async def test_port_zero_opens_nothing() -> None:
    """With observability.port = 0 the daemon listens nowhere, and close() is content."""
    server = Server(ObservabilitySettings(port=0), a_report())
    before = listening()
    await server.open()
    assert listening() == before
    await server.close()


async def test_close_does_not_wait_for_idle_connections() -> None:
    """A scraper that keeps its connection open does not hold the stop; the port is free at once."""
    port = free_port()
    server = Server(ObservabilitySettings(port=port), a_report())
    await server.open()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/live") as answer:
            await answer.read()
        await asyncio.wait_for(server.close(), 3)
        await server.close()
    again = Server(ObservabilitySettings(port=port), a_report())
    await again.open()
    await again.close()


def connected(port: int, said: bytes = b"GET /live HTTP/1.1\r\nHost: x\r\n") -> socket.socket:
    """A connection whose request does not end."""
    opened = socket.create_connection(("127.0.0.1", port))
    opened.sendall(said)
    return opened


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it."""
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


async def test_half_open_requests_leave_descriptors_and_room() -> None:
    """1 100 of them, in a process of 1 024 descriptors' worth: few are kept, the others are closed, and who asks in
    good order is answered all the while.
    """
    report = a_report()
    port = free_port()
    server = Server(ObservabilitySettings(port=port), report)
    await server.open()
    before = psutil.Process().num_fds()
    halves: list[socket.socket] = []
    try:
        for _ in range(11):
            halves += [await asyncio.to_thread(connected, port) for _ in range(100)]
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/live") as answer,
            ):
                assert answer.status == 200
        ours = psutil.Process().num_fds() - before - len(halves)
        assert ours <= doorkeeper.CONNECTIONS + 2
        assert sum(map(closed, halves)) >= 1100 - doorkeeper.CONNECTIONS
    finally:
        for one in halves:
            one.close()
        await server.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /live HTTP/1.1\r\nHost:", b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"],
)
async def test_a_request_that_does_not_come_is_given_up(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, whatever of it has come; a connection between two requests is kept longer."""
    monkeypatch.setattr(doorkeeper, "REQUEST_SECONDS", 0.2)
    port = free_port()
    server = Server(ObservabilitySettings(port=port), a_report())
    await server.open()
    try:
        slow = await asyncio.to_thread(connected, port, said)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/live") as answer:
                assert answer.status == 200
            with contextlib.closing(slow):
                if said.startswith(b"POST"):
                    assert b"405" in await asyncio.to_thread(slow.recv, 100)
                else:
                    await eventually_async(lambda: closed(slow), timeout=5)
            async with session.get(f"http://127.0.0.1:{port}/live") as answer:
                assert answer.status == 200
    finally:
        await server.close()


def test_where_descriptors_are_few_fewer_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of broker, databases and spool stay free."""
    for soft, most in ((1024, 64), (256, 32), (16, 4), (resource.RLIM_INFINITY, 64)):
        monkeypatch.setattr(resource, "getrlimit", lambda _what, soft=soft: (soft, soft))
        assert doorkeeper.allowed() == most
