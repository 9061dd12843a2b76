"""One run of the tests, with all its workers: its folders, what is prepared once for all, the end of all it started.

A worker that is killed or that crashes cannot end its servers and daemons: the process that pytest was called as does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

MARK = "GATEWAY_TEST_RUN"
"""In the environment of all that a run starts: the name of its folders."""


def begin() -> None:
    """Begin a run; workers, which inherit the mark, belong to the run of the process that started them."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)  # servers run as other users
    os.environ[MARK] = folder.name


def folder(parent: Path | None = None) -> Path:
    """The run's folder in this one (default: where temporary files are); that itself where no run has begun."""
    place = parent or Path(tempfile.gettempdir())
    if MARK not in os.environ:
        return place
    found = place / os.environ[MARK]
    found.mkdir(mode=0o711, exist_ok=True)
    return found


def once(name: str, make: Callable[[Path], None], parent: Path | None = None) -> Path:
    """What ``make`` makes at the path it is given: the first worker that asks does, the others wait for it."""
    made = folder(parent) / name
    with _locked(made.with_name(f"{name}.lock")):
        if not made.exists():
            make(unfinished := made.with_name(f"{name}.unfinished"))
            unfinished.rename(made)
    return made


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def end(*parents: Path) -> list[str]:
    """Kill what is left of the run, and remove its folders, also in these places; the commands that were killed."""
    mark = os.environ.pop(MARK)
    left = [process for process in psutil.process_iter() if _carries(process, mark)]
    killed = []
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            killed.append(" ".join(process.cmdline())[:200])
            process.kill()
    psutil.wait_procs(left, timeout=10)
    for place in (Path(tempfile.gettempdir()), *parents):
        shutil.rmtree(place / mark, ignore_errors=True)
    return killed


def _carries(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.pid != os.getpid() and process.environ().get(MARK) == mark
    return False
