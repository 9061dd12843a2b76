"""Settings: TOML, the environment, and every option with hostile values."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway import settings
from gateway.daemon import exposure
from gateway.daemon.check import check
from gateway.errors import GatewayError
from gateway.mqtt import packets, subscriptions
from gateway.mqtt.paho_client import make_client
from gateway.settings import Settings, effective
from gateway.settings.sample import sample
from tests.support.fuzzing import attempt, fuzzed, spoiled
from tests.support.minimal import MINIMAL

SECRET = "qz7Xk9vJ5wy3"
OPTIONS = sorted(
    {*(f"streams.0.{name}" for name in settings.StreamSettings.model_fields)}
    | {name for name in settings.options(Settings) if not name.startswith("streams.")}
)
SECRETS = [
    *(f"postgresql://u:{SECRET}{text}@h/d" for text in ("", "#[", "@", "/", "?a=b", "%zz", "\x1b", " ")),
    f"postgresql://u:{SECRET}@h:{'9' * 5000}/d", f"postgresql://u@h/d?password={SECRET}&connect_timeout=1e9",
    f"postgresql://u:{SECRET}@h/d?port=²&sslmode={SECRET}", SECRET, f"{SECRET}\n", f"postgresql://{SECRET}",
]  # fmt: skip
SECRET_OPTIONS = ["mqtt.password", "databases.metadata.dsn", "databases.timeseries.dsn"]
TEXTS = [
    "", " ", "\0", "a\0b", "\x1b[31m", "\u202e", "\r\nX: y", "a" * 70_000, "é" * 40_000, "-1", "inf", "nan", "1e308",
    "-1s", "10min", "9" * 400 + "d", "9" * 400 + "GiB", "9" * 5000, "٣", "64MiB", "0001-01-01", "2000-01-01",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "{tenant}/{device}", "{tenant}/#",
    "+/" * 30_000 + "{tenant}", "$share/a/b", "localhost", "::1", "[::1]", "a" * 300 + ".example", "é.example",
    "..", "/", "/dev/null", "/dev/zero", "/nowhere/x", "*" * 5000, "(" * 500, "Europe/Berlin", "../../etc/passwd",
    "5", "auto", "json", "provision", "store", "postgres://", "postgresql://h:0/d", "postgresql://h%00/d",
    "postgresql://h/d?port=²", "postgresql://h,h/d?port=1,2,3", "postgresql://h/d?sslmode=verify-full&service=none",
    f"postgresql://h:{'9' * 5000}/d", "postgresql://h/d?keepalives=1e9",
    f"postgresql://h/d?connect_timeout={'9' * 400}",
]  # fmt: skip


class Raw(str):
    """Stands in TOML as it is."""

    __slots__ = ()


NUMBERS = [
    *(-1, 0, 1, 2, 65_535, 65_536, 2**31, 2**32, 2**63, 2**64, 10**30),
    *(-0.0, 0.5, 1e-300, 1e10, 1e18, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
]
SCALARS = st.sampled_from([
    *TEXTS, *NUMBERS, *map(Raw, ("9" * 400, "9" * 5000, "0x" + "f" * 5000, "1e999", "[" * 5000, "{a=" * 5000)),
    True, False, dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.time(12), dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC),
    Raw("0001-01-01T00:00:00"),
])  # fmt: skip
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(st.sampled_from(["a", "host", "", "\0"]), SCALARS, max_size=2)
)
SECRET_CHOICES = st.dictionaries(st.sampled_from(SECRET_OPTIONS), st.sampled_from(SECRETS), max_size=1)
CHOICES = st.builds(
    lambda some, secret: some | secret,
    st.dictionaries(st.sampled_from(OPTIONS), VALUES, min_size=1, max_size=3),
    SECRET_CHOICES,
)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(name)} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str | bool):
        return json.dumps(value)
    return value.isoformat() if isinstance(value, dt.date | dt.time) else repr(value)


def tree_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The shortest configuration that works, with these options in it."""
    tree = tomllib.loads(MINIMAL)
    for name, value in sorted(chosen.items(), reverse=True):  # a section as a whole comes after its options
        *path, last = name.split(".")
        place: Any = tree
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[last] = value
    return tree


def used(file: Path) -> Settings:
    """What these settings are for, without a network: commands that show them, and what the daemon makes of them first.

    Raises:
        GatewayError: they cannot be used.
    """
    loaded = settings.load(file)
    check(loaded)
    effective.effective(file)
    exposure.warnings(loaded)
    packets.connect_packet(loaded.mqtt)
    packets.subscribe_packet(1, subscriptions(loaded.mqtt, loaded.streams))
    return loaded


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Of the kind that the daemon has."""
    made = uvloop.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the settings."""
    return tmp_path_factory.mktemp("settings") / "gateway.toml"


async def waited_for(loaded: Settings) -> None:
    """Every duration can be waited for, and a client can be made."""
    for seconds in durations(loaded):
        asyncio.get_running_loop().call_later(seconds, print).cancel()
        dt.timedelta(seconds=seconds)
    make_client(loaded.mqtt, None)


def durations(section: BaseModel) -> Iterator[float]:
    """All numbers with a fraction."""
    for _, value in section:
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, BaseModel):
                yield from durations(inner)
            elif isinstance(inner, float):
                yield inner


def judge(loop: asyncio.AbstractEventLoop, file: Path) -> None:
    """A mistake is told without any secret; what is no mistake can be used."""
    found = attempt("settings", lambda: used(file), GatewayError)
    if isinstance(found, Exception):
        assert SECRET not in str(found)
        return
    loop.run_until_complete(waited_for(found))
    assert SECRET not in repr(found)


@fuzzed
@given(chosen=CHOICES)
def test_values(loop: asyncio.AbstractEventLoop, file: Path, chosen: dict[str, Any]) -> None:
    """Options in a file."""
    file.write_text(
        "".join(f"{toml(name)} = {toml(value)}\n" for name, value in tree_of(chosen).items()), "utf-8"
    )
    judge(loop, file)


VARIABLES = st.builds(
    lambda some, secret: some | secret,
    st.dictionaries(
        st.sampled_from(OPTIONS),
        st.sampled_from(
            [
                *(text for text in TEXTS if "\0" not in text),
                *("\udcff", "[" * 5000, '[{"name":' * 300, "{}", "[1]", "null"),
            ]
        ),
        min_size=1,
        max_size=3,
    ),
    SECRET_CHOICES,
)


@fuzzed
@given(chosen=VARIABLES)
def test_variables(loop: asyncio.AbstractEventLoop, file: Path, chosen: dict[str, str]) -> None:
    """Options in the environment, over a file."""
    file.write_text(MINIMAL)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in chosen.items():
            environment.setenv("GATEWAY__" + name.upper().replace(".", "__"), value)
        judge(loop, file)


TOKENS = [token.encode() for token in (
    "\n", '"', "'''", "[", "]", "{", "}", "=", ".", "#", "\\", "\0", "[[streams]]\n", "[mqtt]\n", "a = 1\n", "true",
    "1e308", "9" * 5000, "inf", "\\u0000", "0001-01-01", "_", "password = ", "topic = ",
)] + [b"\xff", b"\xed\xa0\x80", b"\r"]  # fmt: skip


@fuzzed
@given(text=spoiled([MINIMAL.encode(), sample().encode()], TOKENS))
def test_files(loop: asyncio.AbstractEventLoop, file: Path, text: bytes) -> None:
    """Files that were spoilt."""
    file.write_bytes(text)
    judge(loop, file)
