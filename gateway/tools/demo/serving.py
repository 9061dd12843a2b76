"""The demo's servers alone, to look around in what a demo left: until Ctrl-C, or while a command runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gateway.errors import StartError, UsageError
from gateway.tools.demo import pasting, servers
from gateway.tools.demo.folder import Folder
from gateway.tools.servers import postgres
from gateway.tools.stop import Stop


async def serve(place: Path, command: Sequence[str], console: Console) -> int:
    """Keep the servers up until a signal, or run a command beside them; servers that run already are used.

    Args:
        place: the demo's folder.
        command: ``psql``, ``gateway`` or another program, with arguments; it finds the demo's database and
            configuration in its environment. Empty: none.
        console: for what a user reads.

    Returns:
        The command's exit code.

    Raises:
        StartError: a server does not start.
        UsageError: there is no such command, or servers run already and there is no command.
    """
    servers.forget_environment()
    folder = Folder(place)
    if folder.busy():
        return await _execute(folder, command)
    with folder.claimed(), Stop() as stop, contextlib.suppress(asyncio.CancelledError):
        async with servers.running(folder, (lambda _: None) if command else console.print):
            if command:
                return await _execute(folder, command)
            console.print("The servers are up until Ctrl-C. Paste into another terminal:")
            for line in pasting.serving(folder, postgres.binaries() / "psql", _psql(folder)):
                console.print(f"  {line}", soft_wrap=True)
            stop.patient = True
            await stop.asked()
    return 1 if command else 0


async def _execute(folder: Folder, command: Sequence[str]) -> int:
    if not command:
        raise UsageError(f"the servers in {folder.path} run already; name a command to run beside them")
    program = [sys.executable, "-m", "gateway", *command[1:]] if command[0] == "gateway" else list(command)
    # Ctrl-C is the command's: in psql it ends a query, not the session.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    try:
        process = await asyncio.create_subprocess_exec(*program, env=_environment(folder))
    except OSError as error:
        raise UsageError(f"cannot run {program[0]}: {error.strerror}") from error
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _environment(folder: Folder) -> dict[str, str]:
    path = os.pathsep.join((str(postgres.binaries()), os.environ.get("PATH", os.defpath)))
    return {**os.environ, **_psql(folder), "PATH": path, "GATEWAY_CONFIG": str(folder.config)}


def _psql(folder: Folder) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(folder.psql.read_text("utf-8"))
    except OSError as error:
        raise StartError(f"the demo in {folder.path} is still starting; try again") from error
    return found
