"""What systemd is told, seen at the other end of a real datagram socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.observability.notify import Notify


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket, and its name as NOTIFY_SOCKET has it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@gateway-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.settimeout(5)
        yield listening, name


def test_ready_status_stopping(systemd: tuple[socket.socket, str]) -> None:
    """Each call is one datagram, as sd_notify(3) has it; a status is one line."""
    listening, name = systemd
    with Notify({"NOTIFY_SOCKET": name}) as notify:
        notify.ready("3 streams")
        notify.status("waiting for\nthe broker")
        notify.stopping()
    assert listening.recv(1000) == b"READY=1\nSTATUS=3 streams"
    assert listening.recv(1000) == b"STATUS=waiting for the broker"
    assert listening.recv(1000) == b"STOPPING=1\nSTATUS=stopping"


async def test_signs_of_life_at_half_the_time_allowed(systemd: tuple[socket.socket, str]) -> None:
    """While the loop runs, systemd hears twice within WATCHDOG_USEC."""
    listening, name = systemd
    with Notify({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}) as notify:
        assert notify.interval == pytest.approx(0.1)
        task = asyncio.create_task(notify.watch())
        heard = [await asyncio.to_thread(listening.recv, 100) for _ in range(3)]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert heard == [b"WATCHDOG=1"] * 3


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid() + 1)},
    ],
)
async def test_no_watchdog_unless_asked(
    systemd: tuple[socket.socket, str], environment: dict[str, str]
) -> None:
    """Without a watchdog, or with one meant for another process, watch() returns at once."""
    _, name = systemd
    with Notify({"NOTIFY_SOCKET": name, **environment}) as notify:
        assert notify.interval is None
        await asyncio.wait_for(notify.watch(), 5)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
async def test_without_systemd_nothing_happens(environment: dict[str, str]) -> None:
    """Run by hand or in a container, every call is accepted and does nothing."""
    with Notify({**environment, "WATCHDOG_USEC": "200000"}) as notify:
        notify.ready("up")
        notify.stopping()
        await asyncio.wait_for(notify.watch(), 5)


def test_nobody_listening_is_no_reason_to_stop(tmp_path: Path) -> None:
    """A socket that is gone costs a warning, not the daemon."""
    with Notify({"NOTIFY_SOCKET": str(tmp_path / "gone")}) as notify, capture_logs() as logged:
        notify.ready("up")
    assert [line["event"] for line in logged] == ["systemd not reached"]
