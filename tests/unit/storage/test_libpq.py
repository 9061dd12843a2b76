"""What a DSN asks for: hosts, their share of the time, options that the driver does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway import errors
from gateway.settings import DatabaseSettings
from gateway.storage import libpq


def read(text: str, **options: float) -> libpq.Target:
    """What is understood of a DSN."""
    return libpq.read(DatabaseSettings(dsn=SecretStr(text), **options))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("postgresql://a@h/db", ["h:5432"]),
        ("postgresql://a@h1:1,h2:2/db", ["h1:1", "h2:2"]),
        ("postgresql://a@[::1]:1,h2/db", ["[::1]:1", "h2:5432"]),
        ("postgresql:///db?host=h1,::1&port=7", ["h1:7", "[::1]:7"]),
        ("postgresql:///db?host=h1,h2&port=7,8", ["h1:7", "h2:8"]),
        ("postgresql://%2Frun%2Fpg/db", ["/run/pg"]),
        ("postgresql:///db?host=/run/pg", ["/run/pg"]),
        ("postgresql:///db", ["the local socket"]),
    ],
)
def test_all_hosts_are_found(text: str, hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By TCP, IPv6 or unix socket, in the authority or in the query."""
    for name in ("PGHOST", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    assert [str(host) for host in read(text).hosts] == hosts


def test_hosts_share_the_time() -> None:
    """The settings' time is for all; that of the DSN, as in libpq, for each."""
    two = "postgresql://a@h1,h2/db"
    assert read(two, connect_timeout=10).seconds == 5
    assert read(two, connect_timeout=3).seconds == 2
    assert read(two + "?connect_timeout=7", connect_timeout=10).seconds == 7
    assert read("postgresql://a@h/db", connect_timeout=10).seconds == 10
    assert read(two + "?connect_timeout=0").seconds is None


def test_of_several_hosts_the_writable_one() -> None:
    """Unless the DSN says otherwise; a single host is taken as it is."""
    assert read("postgresql://a@h1,h2/db").attributes == "read-write"
    assert read("postgresql://a@h1,h2/db?target_session_attrs=any").attributes == "any"
    assert read("postgresql://a@h/db").attributes == "any"


@pytest.mark.parametrize(
    "option",
    ["channel_binding=prefer", "gssencmode=disable", "client_encoding=UTF8", "sslsni=1", "keepalives_idle=5",
     "connect_timeout=3", "load_balance_hosts=random", "tcp_user_timeout=1000"],
)  # fmt: skip
def test_libpq_options_are_no_settings_of_the_server(option: str) -> None:
    """They are understood or without effect: the server never hears of them."""
    target = read(f"postgresql://a@h/db?{option}")
    assert not target.server_settings
    assert option.partition("=")[0] not in target.dsn


@pytest.mark.parametrize(
    "option",
    ["channel_binding=require", "gssencmode=require", "hostaddr=1.2.3.4", "client_encoding=LATIN1",
     "require_auth=scram-sha-256", "sslrootcert=system", "target_session_attrs=best", "connect_timeout=soon",
     "replication=database", "load_balance_hosts=maybe", "service=nowhere"],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_by_name(option: str) -> None:
    """With what to write instead."""
    with pytest.raises(errors.ConfigurationError, match=option.partition("=")[0]):
        read(f"postgresql://a@h/db?{option}")


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (f"port={'9' * 5000}", "port"),
        (f"connect_timeout={'9' * 400}", "connect_timeout"),
        ("keepalives_idle=99999999999", "keepalives_idle"),
        (f"tcp_user_timeout={'9' * 5000}", "tcp_user_timeout"),
    ],
)
def test_numbers_that_no_socket_takes_are_refused(option: str, named: str) -> None:
    """By name, when the DSN is read, and not where they are used."""
    with pytest.raises(errors.ConfigurationError, match=named):
        read(f"postgresql://a@h/db?{option}")


def test_a_service_brings_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the DSN go before them."""
    file = tmp_path / "service.conf"
    file.write_text("[gw]\nhost=h1,h2\nport=7\nconnect_timeout=4\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    target = read("postgresql://a@/db?service=gw&connect_timeout=9")
    assert ([str(host) for host in target.hosts], target.seconds) == (["h1:7", "h2:7"], 9)
