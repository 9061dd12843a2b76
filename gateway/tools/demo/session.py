"""The demo from start to proof.

Servers and gateway start, the fleet publishes while the screen shows what becomes of it, the fleet stops, everything
published is waited for, the gateway is stopped as systemd would, and the counts of all three are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from gateway.errors import GatewayError
from gateway.tools.demo import pasting, servers
from gateway.tools.demo.fleet import Fleet
from gateway.tools.demo.folder import Folder
from gateway.tools.demo.proof import Proof
from gateway.tools.demo.screen import screen
from gateway.tools.demo.tables import Tables
from gateway.tools.demo.view import CURVES, View
from gateway.tools.demo.watch import DaemonWatch
from gateway.tools.servers.part import Part, unless_ended
from gateway.tools.stop import Stop

_LOOK_EVERY = 0.5
_READY_WITHIN = 60.0
_SETTLED_WITHIN = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to run.

    Attributes:
        seconds: how long the fleet publishes; None: until it is stopped.
        rate: messages a second.
        fresh: forget what an earlier demo left in the folder.
    """

    folder: Path
    seconds: float | None
    rate: float
    seed: int
    fresh: bool


async def run(options: DemoOptions, console: Console) -> bool:
    """Run the demo; returns whether the books held.

    Raises:
        StartError: a part does not start.
        GatewayError: a part ended by itself, or the demo was stopped before its proof.
    """
    servers.forget_environment()
    folder = Folder(options.folder)
    console.print(f"gateway demo in {pasting.near(folder.path)}")
    with folder.claimed(fresh=options.fresh), Stop() as stop:
        _log_to(folder.log("demo"))
        try:
            async with servers.running(folder, console.print) as up:
                proof = await DemoRun(options, folder, console, stop, up).prove()
        except asyncio.CancelledError:
            raise GatewayError("stopped before the books could be checked") from None
    for line in proof.lines():
        console.print(line, soft_wrap=True)
    if not proof.held:
        console.print(f"See {pasting.near(folder.log('gateway'))}.")
    console.print("\nTry next; each line brings the servers up again, and down when it is done:")
    for command in pasting.afterwards(folder):
        console.print(f"  {command}", soft_wrap=True)
    return proof.held


def _log_to(file: Path) -> None:
    """What libraries complain of goes to a file: on the terminal it would tear the screen."""
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(filename=file, filemode="w", level=logging.WARNING, format=form, force=True)


class DemoRun:
    """One run, from the first message to the last count."""

    def __init__(
        self, options: DemoOptions, folder: Folder, console: Console, stop: Stop, up: servers.Servers
    ) -> None:
        self._options, self._folder, self._console, self._stop, self._up = options, folder, console, stop, up
        self._fleet = Fleet(port=up.broker.port, rate=options.rate, seed=options.seed)
        self._gateway = Part("the gateway", folder.log("gateway"))

    async def prove(self) -> Proof:
        """Run gateway and fleet, stop both, count.

        Raises:
            GatewayError: a part does not start, or ends by itself.
        """
        async with DaemonWatch(self._up.health_port) as watch, self._tables() as tables:
            before = await tables.count()
            try:
                await self._start_gateway(watch)
                parts = (self._gateway, self._up.broker.part, self._up.postgres.part)
                books = await unless_ended(parts, self._publish(watch, tables))
            finally:
                exit_code = await self._gateway.stop()
            added = (await tables.count()).since(before)
        return Proof(self._fleet.published, books, added, exit_code)

    def _tables(self) -> contextlib.AbstractAsyncContextManager[Tables]:
        followed = {curve.member.serial for curve in CURVES}
        devices = {serial: self._up.devices[serial] for serial in followed}
        return Tables.open(self._up.timeseries, devices)

    async def _start_gateway(self, watch: DaemonWatch) -> None:
        with servers.took("the gateway, a process of its own", self._console.print):
            command = [sys.executable, "-m", "gateway", "run", f"--config={self._folder.config}"]
            await self._gateway.start(command)
            await self._gateway.until(watch.ready, _READY_WITHIN)

    async def _publish(self, watch: DaemonWatch, tables: Tables) -> Mapping[str, int]:
        """Let the fleet publish until it is time to stop; the gateway's books when all of it is settled."""
        async with self._fleet.publishing() as publishing:
            view = View()
            with screen(self._console, pasting.beside(self._folder)) as shown:
                self._stop.patient = True
                while not publishing.done() and not await self._over(view):
                    view.see(await watch.look(), await tables.latest())
                    view.published, view.wrong = self._fleet.total, self._fleet.wrong
                    shown.show(view)
        self._console.print("the fleet has stopped; waiting until everything it published is settled")
        return await self._settled(watch)

    async def _over(self, view: View) -> bool:
        """Whether the time is up or a stop was asked for; takes a moment to find out."""
        left = math.inf if self._options.seconds is None else self._options.seconds - view.elapsed
        return await self._stop.asked(timeout=max(min(left, _LOOK_EVERY), 0)) or left <= _LOOK_EVERY

    async def _settled(self, watch: DaemonWatch) -> Mapping[str, int]:
        """The books when they contain all that was published; the last ones when that takes too long."""
        deadline = time.monotonic() + _SETTLED_WITHIN
        seen = await watch.look()
        while seen is None or seen.books["in_flight"] or seen.books["received"] < self._fleet.total:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
            seen = await watch.look() or seen
        if seen is None:
            raise GatewayError(f"the gateway does not answer any more; see {self._folder.log('gateway')}")
        return seen.books
