"""What can be known of a configuration without any network."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import settings
from gateway.daemon.check import check
from gateway.errors import ConfigurationError
from tests.support.minimal import MINIMAL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the minimal configuration."""
    path = tmp_path / "gateway.toml"
    path.write_text(MINIMAL)
    return path


def test_what_is_right_passes_with_nobody_listening(file: Path) -> None:
    """Neither broker nor database is asked: check passes on a machine that has none."""
    check(settings.load(file))


def test_all_that_is_missing_is_named(file: Path) -> None:
    """Unreadable secrets, TLS files and unknown decoders are named together, one a line."""
    text = MINIMAL.replace("[mqtt]", '[mqtt]\npassword_file = "/nowhere/password"')
    text = text.replace('decoder = "json"', 'decoder = "morse"')
    file.write_text(text + '\n[mqtt.tls]\nca_file = "/nowhere/ca.pem"\n')
    with pytest.raises(ConfigurationError) as caught:
        check(settings.load(file))
    first, *mistakes = str(caught.value).splitlines()
    assert first == "3 mistake(s)"
    assert [
        part in line for part, line in zip(("/nowhere/password", "ca.pem", "morse"), mistakes, strict=True)
    ]


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("mysql://gateway@db/m", "this is no DSN: write postgresql://user@host/name"),
        ("postgresql://gateway@db", "names no database"),
        ("postgresql://gateway@db/m?channel_binding=require", "no channel binding"),
    ],
)
def test_a_dsn_that_cannot_be_used_is_named(file: Path, dsn: str, expected: str) -> None:
    """Its option, and what to write instead; without asking a server."""
    file.write_text(MINIMAL.replace("postgresql://gateway@127.0.0.1/gateway_metadata", dsn))
    with pytest.raises(ConfigurationError, match=rf"databases\.metadata\.dsn: .*{expected}"):
        check(settings.load(file))
