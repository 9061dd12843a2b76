"""What belongs to a run of the tests: made once for all workers, ended with it."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support import run


@pytest.fixture(autouse=True)
def _own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run.MARK, os.environ[run.MARK])  # restored afterwards
    run.begin()


def test_what_is_left_of_a_run_is_ended_with_it() -> None:
    """A process that a worker left is killed and named, its folder is removed; those of other runs go on."""
    folder = run.folder()
    with subprocess.Popen(["sleep", "61"]) as left, subprocess.Popen(["sleep", "62"], env={}) as other:
        assert run.end() == ["sleep 61"]
        assert not psutil.pid_exists(left.pid)
        assert other.poll() is None
        other.kill()
    assert not folder.exists()


def test_what_is_shared_is_made_once() -> None:
    """Whoever asks meanwhile waits until it is whole."""
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: run.once("thing", make).read_text(), range(8)))
    assert (len(made), set(found)) == (1, {"whole"})
    run.end()
