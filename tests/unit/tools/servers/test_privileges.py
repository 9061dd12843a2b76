"""As whom a part runs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.tools.servers import privileges
from gateway.tools.servers.privileges import RunAs


@pytest.mark.skipif(os.geteuid() != 0, reason="root's case")
def test_root_runs_servers_as_whoever_was_there_first(tmp_path: Path) -> None:
    """A cluster keeps its owner, even one without a name; a new one is nobody's."""
    owned = tmp_path / "postgres"
    owned.mkdir()
    os.chown(owned, 12, 12)
    earlier, new = privileges.other_user(owned), privileges.other_user(tmp_path / "none")
    assert earlier is not None
    assert new is not None
    assert earlier.uid == 12
    assert new.uid not in (0, 12)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's case")
def test_root_changes_no_folder_that_is_closed_to_others(tmp_path: Path) -> None:
    """Below a closed folder the other user keeps the capability to pass; below an open one none."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    below, beside = privileges.other_user(closed / "postgres"), privileges.other_user(Path("/tmp/postgres"))
    assert below is not None
    assert beside is not None
    assert below.override
    assert not beside.override
    assert closed.stat().st_mode & 0o777 == 0o700


def test_without_setpriv_an_ordinary_user_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root cannot: the error says what to install."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert privileges.wrapper(None, signal.SIGTERM) == []
    with pytest.raises(StartError, match="util-linux"):
        privileges.wrapper(RunAs(1, 1, override=False), signal.SIGTERM)
