"""Ports of the tests' own servers."""

from __future__ import annotations

import socket

import pytest

from tests.support import waiting
from tests.support.waiting import free_port


def test_a_server_that_is_away_keeps_its_port() -> None:
    """Neither another server here nor the kernel is given it: who dials again finds the own broker or none."""
    given = [free_port() for _ in range(100)]
    assert len(set(given)) == 100
    with socket.create_server(("127.0.0.1", 0)) as anything:
        assert anything.getsockname()[1] > max(given)


def test_workers_share_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever two of them ask for."""
    found = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        ports = waiting._ports_of_this_worker()
        found.append({next(ports) for _ in range(2000)})
    assert found[0].isdisjoint(found[1])


def test_a_port_in_use_is_not_given() -> None:
    """Of another run on this machine, for instance."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert not waiting._is_free(port)
