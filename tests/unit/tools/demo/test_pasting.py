"""Commands to paste."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from gateway.tools.demo import pasting
from gateway.tools.demo.folder import Folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of this test's own, with the command in a virtual environment there."""
    monkeypatch.chdir(tmp_path)
    command = tmp_path / ".venv" / "bin" / "gateway"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(command), "demo"])


def test_are_as_short_as_they_can_be() -> None:
    """Paths are told from here, and what is the default is not told."""
    commands = pasting.beside(Folder(Path(".demo")))
    assert ".venv/bin/gateway demo --serve psql" in commands
    assert ".venv/bin/gateway status --config .demo/gateway.toml" in commands
    assert max(map(len, commands)) <= 80


def test_name_the_folder_when_it_is_another(tmp_path: Path) -> None:
    """What was run with ``--folder`` is looked at with ``--folder``, spaces and all."""
    place = tmp_path.parent / "a demo"
    words = shlex.split(pasting.afterwards(Folder(place))[0])
    assert [".venv/bin/gateway", "demo", "--folder", str(place), "--serve", "--", "psql"] == words[:7]


def test_a_gateway_on_the_path_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the user called it."""
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    assert pasting.program() == ["gateway"]


def test_a_module_is_called_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m gateway`` says so again."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/gateway/__main__.py", "demo"])
    assert pasting.program()[1:] == ["-m", "gateway"]
