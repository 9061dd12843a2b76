"""What every scenario works with: loads, sessions, the gateway, and the sight of rows."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway import clock
from gateway.errors import GatewayError
from gateway.tools.bench import servers, sessions, usage, written
from gateway.tools.bench.daemon import MeasuredDaemon
from gateway.tools.bench.installation import BenchInstallation
from gateway.tools.bench.options import BenchOptions, Scenario
from gateway.tools.bench.orders import Order, Published
from gateway.tools.bench.scratch import Names, Scratch
from gateway.tools.bench.shape import Shape
from gateway.tools.bench.sight import TelemetrySight
from gateway.tools.servers.part import Part, unless_ended
from gateway.tools.servers.ports import free_port

T = TypeVar("T")
Tell = Callable[[str], None]
"""Takes a line about what is going on."""

GATEWAY, BROKER, POSTGRES = "gateway", "broker", "PostgreSQL"
_HISTORY_MS = 12 * 3_600_000
_LEAST_RATE = 500
"""Messages a second; a slower consumer is taken as stuck."""


class Bench:
    """One installation being measured."""

    def __init__(
        self, options: BenchOptions, installation: BenchInstallation, scratch: Scratch, sight: TelemetrySight,
        *, folder: Path, postgres_pid: int | None, tell: Tell,
    ) -> None:  # fmt: skip
        self.options, self.installation, self.scratch, self.sight = options, installation, scratch, sight
        self.folder, self.tell = folder, tell
        self.mqtt = installation.configured.mqtt
        """The broker."""
        self._postgres_pid, self._broker_pid = postgres_pid, installation.broker_pid
        self.limit: int | None = None
        """Messages that the broker keeps for one client; None: not reached."""
        self.notes: list[str] = []
        self._clients: set[str] = set()
        self._time_ms = clock.now_us() // 1000 - _HISTORY_MS
        """The devices' time, which goes on from load to load: no reading meets another's key."""

    @property
    def names(self) -> Names:
        """The scratch names."""
        return self.scratch.names

    def patience(self, messages: int) -> float:
        """Seconds after which that many messages will not come any more."""
        return 60 + messages / _LEAST_RATE

    # sessions and loads ----------------------------------------------------------------------

    async def hold(self, client: str) -> str:
        """Have the broker keep for this client what is published from now on, and nothing else; its client id."""
        client_id = self.names.client_id(client)
        self._clients.add(client_id)
        await asyncio.to_thread(sessions.end, self.mqtt, client_id)
        await asyncio.to_thread(sessions.hold, self.mqtt, client_id, self.names.filter)
        return client_id

    async def release(self) -> None:
        """Have the broker forget all clients of the bench."""
        for client_id in self._clients:
            await asyncio.to_thread(sessions.end, self.mqtt, client_id)

    async def publish(
        self, kind: Shape, count: int, *, rate: float = 0, seconds: float = 0, probe_every: int = 0
    ) -> Published:
        """Publish a load from a process of its own.

        Raises:
            GatewayError: the broker refused some of it, or had no subscriber.
        """
        await self.scratch.have_devices(kind.devices)
        order = Order(
            mqtt=written.plain(self.mqtt), prefix=self.names.prefix, shape=kind, count=count,
            start_ms=self._time_ms, seed=self.options.seed, rate=rate, seconds=seconds, probe_every=probe_every,
        )  # fmt: skip
        place = written.write_private(self.folder / "order.json", msgspec.json.encode(order).decode())
        load = Part("the load", self.folder / "load.log")
        await load.start([sys.executable, "-m", "gateway.tools.bench.load", place])
        await self.watching(load.finish(self.patience(count) + seconds))
        published = msgspec.json.decode(load.log.read_bytes(), type=Published)
        self._time_ms = published.stamp_ms + 1
        if published.refused or published.unmatched:
            raise GatewayError(
                f"the broker refused {published.refused} messages, and had no subscriber for {published.unmatched}: "
                f"let mqtt.username write and read {self.names.prefix}#, or measure with --own-servers"
            )
        return published

    async def backlog(self, kind: Shape, count: int, client: str = GATEWAY) -> str:
        """Empty tables, and a session with that many messages; its client id."""
        await self.scratch.empty()
        client_id = await self.hold(client)
        await self.publish(kind, count)
        return client_id

    async def kept(self) -> int:
        """How many messages of a backlog the broker keeps for an absent client: some drop what exceeds a limit."""
        self.tell("looking how much this broker keeps for an absent client")
        client_id = await self.backlog(Shape(), self.options.messages, "kept")
        return await asyncio.to_thread(sessions.take_all, self.mqtt, client_id)

    def bound_by(self, kept: int) -> None:
        """Mind that the broker keeps that many."""
        if kept < self.options.messages:
            self.limit = kept
            self.options = dataclasses.replace(self.options, messages=kept)
            self.notes.append(
                f"this broker keeps {kept} messages for an absent client and drops the others (mosquitto: "
                "max_queued_messages): backlogs are no longer, and only drain and slow rates of latency are run"
            )

    async def still(self) -> None:
        """Have the disk do what it was left with: commits would wait for it, and for the blocks of deleted files."""
        await asyncio.to_thread(os.sync)

    def scenarios(self) -> list[Scenario]:
        """What is to be run, without those that would have the broker drop messages."""
        wanted = self.options.scenarios
        return [one for one in wanted if self.limit is None or one in (Scenario.DRAIN, Scenario.LATENCY)]

    @contextlib.asynccontextmanager
    async def narrow_broker(self, window: int) -> AsyncIterator[None]:
        """For the block another broker, which hands over no more than that many messages at once."""
        before = self.mqtt, self._broker_pid
        async with servers.unlimited(self.folder, window=window) as broker:
            self.mqtt = self.mqtt.model_copy(update={"port": broker.port})
            self._broker_pid = broker.part.pid
            try:
                yield
            finally:
                self.mqtt, self._broker_pid = before

    # the gateway -----------------------------------------------------------------------------

    def daemon(self) -> MeasuredDaemon:
        """The gateway, not started yet."""
        configured = self.installation.configured
        ours = {"client_id": self.names.client_id(GATEWAY), "share_group": None}
        observability = {"listen": "127.0.0.1", "port": free_port(), "log_format": "json"}
        options = configured.model_copy(
            update={
                "mqtt": self.mqtt.model_copy(update=ours),
                "streams": (self.names.stream,),
                "spool": configured.spool.model_copy(update={"folder": self.folder / "spool"}),
                "validation": configured.validation.model_copy(update={"max_age": 1e10}),
                "observability": configured.observability.model_copy(update=observability),
            }
        )
        return MeasuredDaemon(options, self.folder)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[MeasuredDaemon]:
        """The gateway for the block, ready, with a session that the broker keeps."""
        await self.hold(GATEWAY)
        async with self.daemon() as daemon:
            await daemon.ready()
            yield daemon

    async def watching(self, work: Coroutine[Any, Any, T], *parts: Part) -> T:
        """The result of ``work``, unless a server or one of the parts ends meanwhile."""
        return await unless_ended((*self.installation.parts, *parts), work)

    def meter(self, **processes: int | None) -> usage.Meter:
        """Of the servers, as far as they are on this machine, and of these processes."""
        return usage.Meter({**processes, BROKER: self._broker_pid, POSTGRES: self._postgres_pid})
