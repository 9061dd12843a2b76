"""A child process that is started, watched and surely ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gateway.errors import StartError
from gateway.tools.servers.part import Part, PartEndedError, unless_ended
from tests.support.waiting import eventually

OBSTINATE = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


def part(tmp_path: Path) -> Part:
    """A part that is not started."""
    return Part("the part", tmp_path / "part.log")


async def said(process: Part) -> bool:
    """Whether it said that it is up."""
    return "up" in process.log.read_text()


def ended(process: psutil.Process) -> bool:
    """Whether it has ended; when pid 1 gets round to reaping an orphan is not ours to wait for."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_stops_what_it_started(tmp_path: Path) -> None:
    """The exit code tells how it ended; stopping twice is once."""
    started = part(tmp_path)
    await started.start(["sleep", "60"])
    assert started.running
    assert await started.stop() == -signal.SIGTERM
    assert await started.stop() == -signal.SIGTERM
    assert not started.running


async def test_kills_what_does_not_stop(tmp_path: Path) -> None:
    """A process that ignores the signal is gone after the deadline all the same."""
    started = part(tmp_path)
    await started.start([sys.executable, "-c", OBSTINATE])
    await started.until(lambda: said(started), timeout=20)
    assert await started.stop(timeout=0.2) == -signal.SIGKILL


async def test_a_part_that_fails_at_start_says_why(tmp_path: Path) -> None:
    """Its last words are in the error."""
    failing = part(tmp_path)
    await failing.start([sys.executable, "-c", "raise SystemExit('no such luck')"])
    with pytest.raises(StartError, match=r"exit code 1(?s:.)*no such luck"):
        await failing.until(lambda: said(failing), timeout=20)


async def test_a_part_that_is_never_ready_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """The error names the part and the time."""
    slow = part(tmp_path)
    await slow.start(["sleep", "60"])
    try:
        with pytest.raises(StartError, match="the part is not ready"):
            await slow.until(lambda: said(slow), timeout=0.3)
    finally:
        await slow.stop()


async def test_a_program_that_is_missing_is_told(tmp_path: Path) -> None:
    """Whether the shell of ``setpriv`` notices or we do."""
    missing = part(tmp_path)

    async def begin() -> None:
        await missing.start([tmp_path / "nothing"])
        await missing.until(lambda: said(missing), timeout=20)

    with pytest.raises(StartError, match="the part"):
        await begin()


async def test_work_ends_with_the_part_that_dies(tmp_path: Path) -> None:
    """Nobody waits for the work of a part that is gone; the error names the part, not the consequence."""
    dying, sound = part(tmp_path), Part("another", tmp_path / "another.log")
    await sound.start(["sleep", "60"])
    await dying.start([sys.executable, "-c", "print('farewell')"])
    try:
        with pytest.raises(PartEndedError, match=r"the part ended by itself(?s:.)*farewell"):
            await unless_ended([sound, dying], asyncio.sleep(60))
    finally:
        await sound.stop()


async def test_work_that_is_done_has_its_result(tmp_path: Path) -> None:
    """Parts that go on are no matter."""
    sound = part(tmp_path)
    await sound.start(["sleep", "60"])
    try:
        assert await unless_ended([sound], asyncio.sleep(0, "done")) == "done"
        assert sound.running
    finally:
        await sound.stop()


@pytest.mark.skipif(not Path("/usr/bin/setpriv").exists(), reason="needs setpriv (util-linux)")
@pytest.mark.parametrize("settled", [True, False], ids=["running", "still-starting"])
@pytest.mark.parametrize("own_user", [True, False], ids=["own-user", "other-user"])
def test_a_part_does_not_outlive_a_killed_demo(tmp_path: Path, *, settled: bool, own_user: bool) -> None:
    """A SIGKILL of its starter ends the part too, even one that has not yet asked the kernel for a signal."""
    if not own_user and os.geteuid() != 0:
        pytest.skip("only root starts parts as another user")
    slow = tmp_path / "setpriv"
    slow.write_text(
        # Not $PPID: a shell that comes to ask for it too late has the starter's heir for a parent.
        f'#!/bin/sh\nwhile kill -0 $STARTER; do sleep 0.01; done\nexec {shutil.which("setpriv")} "$@"\n'
    )
    slow.chmod(0o755)
    program = f"""
import asyncio, os, pathlib
os.environ["STARTER"] = str(os.getpid())
from gateway.tools.servers.part import Part
from gateway.tools.servers.privileges import RunAs
async def main():
    part = Part("orphan", pathlib.Path({str(tmp_path / "log")!r}))
    await part.start(["sleep", "600"], {None if own_user else "RunAs(65534, 65534, override=True)"})
    print(part.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    path = os.environ["PATH"] if settled else f"{tmp_path}:{os.environ['PATH']}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": path}
    ) as starter:
        assert starter.stdout is not None
        part_process = psutil.Process(int(starter.stdout.readline()))
        if settled:
            eventually(lambda: part_process.name() == "sleep", what="the part runs")
        starter.kill()
    try:
        eventually(lambda: ended(part_process), what="the part ended with its starter")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            part_process.kill()
