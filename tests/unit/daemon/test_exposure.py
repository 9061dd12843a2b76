"""Servers on the network that are not proven to be the right ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway import settings
from gateway.daemon import app, exposure
from tests.support.minimal import MINIMAL

REMOTE = "postgresql://gateway@db.example/gateway_metadata"


def loaded(folder: Path, text: str) -> settings.Settings:
    """The settings of this file."""
    file = folder / "gateway.toml"
    file.write_text(text, "utf-8")
    return settings.load(file)


def with_dsn(folder: Path, dsn: str) -> settings.Settings:
    """The minimal settings with another metadata database."""
    return loaded(folder, MINIMAL.replace("postgresql://gateway@127.0.0.1/gateway_metadata", dsn))


@pytest.fixture(autouse=True)
def _no_sslmode(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSSLMODE", "PGHOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://gateway@127.0.0.1/db",
        "postgresql://gateway@127.1.2.3:5433/db?sslmode=disable",
        "postgresql://gateway@[::1]/db",
        "postgresql://gateway@LOCALHOST./db",
        "postgresql:///db?host=/run/postgresql",
        "postgresql://gateway@/db",
        f"{REMOTE}?sslmode=verify-full&sslrootcert=/ca.pem",
    ],
)
def test_nothing_is_said_of_this_machine_and_of_what_is_verified(tmp_path: Path, dsn: str) -> None:
    """Unix sockets, loopback addresses of both kinds, and verify-full wherever it goes."""
    assert exposure.warnings(with_dsn(tmp_path, dsn)) == []


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", None])
def test_less_than_verify_full_to_another_host_is_a_warning(tmp_path: Path, mode: str | None) -> None:
    """With the database, the host, the mode and what to write; the password is not repeated."""
    dsn = REMOTE.replace("gateway@", "gateway:s3cr#t/x@") + (f"?sslmode={mode}" if mode else "")
    (warning,) = exposure.warnings(with_dsn(tmp_path, dsn))
    assert "databases.metadata: db.example:5432" in warning
    assert f"sslmode={mode or 'prefer'}" in warning
    assert "verify-full" in warning
    assert "s3cr" not in warning


@pytest.mark.parametrize("hosts", ["127.0.0.1,db2.example", "10.0.0.1", "localhost.example"])
def test_one_host_of_several_is_enough(tmp_path: Path, hosts: str) -> None:
    """A private address is a network too, and a name that begins as localhost is another."""
    assert len(exposure.warnings(with_dsn(tmp_path, f"postgresql://a@{hosts}/db"))) == 1


def test_the_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGSSLMODE is what the driver takes where the DSN says nothing, PGHOST where it names no host."""
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert exposure.warnings(with_dsn(tmp_path, REMOTE)) == []
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGHOST", "db.example")
    assert "sslmode=require" in exposure.warnings(with_dsn(tmp_path, "postgresql://a@/db"))[0]


def test_a_broker_without_tls_elsewhere_is_a_warning(tmp_path: Path) -> None:
    """The password goes in the clear there; with TLS, or by a unix socket, nothing is said."""
    remote = MINIMAL.replace('host = "127.0.0.1"', 'host = "broker.example"\nusername = "gateway"')
    (warning,) = exposure.warnings(loaded(tmp_path, remote))
    assert "broker.example:1883 without TLS" in warning
    assert "password" in warning
    assert exposure.warnings(loaded(tmp_path, remote + "\n[mqtt.tls]\n")) == []


def test_the_daemon_says_so_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as a warning, before anything is connected to."""

    class NoLoop:
        def __init__(self, **_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("gateway.observability.logs.configure", lambda *_: None)
    monkeypatch.setattr("asyncio.Runner", NoLoop)
    with capture_logs() as said, pytest.raises(KeyboardInterrupt):
        app.run(with_dsn(tmp_path, REMOTE))
    assert [(line["event"], line["log_level"]) for line in said] == [("exposed", "warning")]
    assert "databases.metadata: db.example:5432" in said[0]["warning"]
