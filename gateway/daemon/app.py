"""Wires the daemon, starts it, stops it. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Coroutine
from typing import Any

import uvloop

from gateway import mqtt, settings
from gateway.daemon import exposure, former_sessions, former_spools
from gateway.daemon.dead_letter_purge import DeadLetterPurge
from gateway.daemon.partitions import PartitionUpkeep
from gateway.ingest import stall
from gateway.ingest.assembly import Foundation, IngestPath, live_path, spool_path
from gateway.ingest.dead_letter_share import DeadLetterShare
from gateway.observability import events, logs, metrics
from gateway.observability.health import Health
from gateway.observability.notify import Notify
from gateway.observability.server import Server
from gateway.observability.status import StatusReport
from gateway.storage import engines
from gateway.tasks import Signals, TaskGuard
from gateway.writer import processed

STOPPED_CLEAN = 0
STOPPED_BY_DEFECT = 1
STOPPED_UNSETTLED = 5

_BOOKS_SECONDS = 1.0
_UPKEEP_SECONDS = 3600.0
_CLOSE_SECONDS = 3.0
_MOST_UNDER_WAY = 200_000
"""Objects that the collector sees come and not go before it looks for garbage: three for each packet id there is."""


def run(options: settings.Settings) -> int:
    """Run the daemon until it is told to stop; the exit code.

    Raises:
        StartError: it cannot start.
        ConfigurationError: the configuration names what does not exist.
    """
    logs.configure(options.observability)
    for warning in exposure.warnings(options):
        events.exposed(warning=warning)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(options))


async def _run(options: settings.Settings) -> int:
    with Notify() as notify:
        return await Gateway(options, notify).run()


class Gateway:
    """All parts of a running gateway. Making one does no I/O."""

    def __init__(self, options: settings.Settings, notify: Notify) -> None:
        self._options, self._notify = options, notify
        self.health = Health()
        self._base = Foundation(options, self.health)
        self._source = mqtt.open_source(
            options.mqtt, options.streams, self.health.component("mqtt"), self._base.sessions
        )
        self._live, self._spooled = live_path(self._base, self._source), spool_path(self._base)
        self.pipeline = self._live.pipeline
        drained = {} if self._spooled is None else self._spooled.routes.tallies
        self.report = StatusReport(
            health=self.health,
            tallies=self._live.routes.tallies,
            in_flight=self.pipeline.in_flight.by_stream,
            gauges=self._gauges(),
            drained=drained,
        )
        self._server = Server(options.observability, self.report)
        self._progress = stall.StallWatchdog(
            self.pipeline.in_flight,
            self._source,
            self._live.routes.tallies,
            self.health,
            limit=options.watchdog.no_progress,
        )
        self._dead_letters = DeadLetterShare(
            [self._live.routes.tallies, drained],
            self.health.component("dead letters"),
            limit=options.watchdog.dead_letter_share,
        )
        self._partitions = PartitionUpkeep(options.databases.timeseries, self._base.stores)
        self._tasks = TaskGuard()

    async def run(self) -> int:
        """Start, run until a signal, stop; the exit code."""
        signals = Signals()
        await self._server.open()
        try:
            self._base.open()
            self._start()
            # What lives as long as the process is never garbage, nor is what is under way: the collector need not
            # walk either again and again.
            gc.freeze()
            gc.set_threshold(_MOST_UNDER_WAY)
            self._notify.ready("running")
            events.started(client_id=self._options.mqtt.client_id, streams=len(self._options.streams))
            died = await self._until_stop(signals.stop)
            return await self._stop(signals.at_once) or (STOPPED_BY_DEFECT if died else STOPPED_CLEAN)
        finally:
            await self._server.close()

    def _paths(self) -> list[IngestPath]:
        return [self._live] if self._spooled is None else [self._live, self._spooled]

    def _start(self) -> None:
        """Writers first, the source last: what is yielded finds everything in place."""
        start = self._tasks.start
        for name, task in (*self._base.tasks, *(one for path in self._paths() for one in path.tasks)):
            start(name, task())
        start("upkeep", self._keep_up())
        start("partitions", self._partitions.keep())
        if self._options.dead_letters.keep:
            start("purge", DeadLetterPurge(self._base.timeseries, self._options.dead_letters.keep).run())
        start("books", self._watch_books())
        start("progress", self._progress.watch())
        start("dead-letters", self._dead_letters.watch())
        start("watchdog", self._notify.watch())
        start("hung", stall.end_when_hung(self._options.watchdog.hung))
        start("source", self._source.run(self._live.sink))
        if self._options.mqtt.worker_of is None:  # else its supervisor does it
            own = {self._options.mqtt.client_id}
            start("sessions", former_sessions.watch(self._options, own, self.health.component("sessions")))
            former_spools.tell(self._options.spool, [self._options.spool.folder])

    async def _until_stop(self, stop: asyncio.Event) -> bool:
        """True: a task died, which is a defect."""
        try:
            await self._tasks.watch(stop)
        except Exception as error:
            events.task_died(error=error)
            self._base.suspects.keep()
            return True
        return False

    async def _stop(self, at_once: asyncio.Event) -> int:
        """Stop reading, write what is held, acknowledge, disconnect, close. 0, or 5 when messages are unsettled."""
        events.stopping(in_flight=self.pipeline.in_flight.by_stream().total())
        self.health.stopping = True
        self._notify.stopping()
        self._source.stop()
        await _first(self.pipeline.wait_settled(), at_once.wait(), timeout=self._options.shutdown.deadline)
        await _first(self._source.close(), at_once.wait(), timeout=_CLOSE_SECONDS)
        await _first(self._base.leave(), at_once.wait(), timeout=_CLOSE_SECONDS)
        unsettled = self.pipeline.in_flight.by_stream().total()
        await self._tasks.cancel()
        for path in self._paths():
            await path.close()
        await self._base.close()
        events.stopped(unsettled=unsettled, balanced=self.report.as_dict()["balanced"])
        return STOPPED_UNSETTLED if unsettled else STOPPED_CLEAN

    async def _keep_up(self) -> None:
        """Task: which chunks there are; no more ids than the horizon asks for."""
        while True:
            await self._base.stores.until_done(self._keep_up_once)
            await asyncio.sleep(_UPKEEP_SECONDS)

    async def _keep_up_once(self) -> None:
        async with self._base.timeseries.connection() as connection:
            engine = await engines.detect(connection)
            chunks = await engine.chunks(connection)
            self._base.chunks.learn(chunks.interval_us, chunks.ranges)
            await processed.prune(connection, self._options.writer.message_id_horizon)

    async def _watch_books(self) -> None:
        """Task: the conservation law, and how fast messages come, once a second."""
        state = self.health.component("books")
        while True:
            self.report.pace.look(self.report.tallies)
            wrong = {name: book for name, book in self.report.books().items() if book["balance"]}
            for name, book in wrong.items():
                events.books_do_not_balance(stream=name, received=book["received"], missing=book["balance"])
                state.failed(
                    f"stream {name}: {book['balance']} messages unaccounted for: a defect, please report"
                )
            if not wrong:
                state.ready()
            await asyncio.sleep(_BOOKS_SECONDS)

    def _gauges(self) -> metrics.Gauges:
        return {**self._path_gauges(), **self._spool_gauges()}

    def _spool_gauges(self) -> metrics.Gauges:
        spool = self._base.spool
        if spool is None:
            return {}
        return metrics.spool_gauges(
            records=lambda: spool.records,
            size_bytes=lambda: spool.size_bytes,
            max_bytes=self._options.spool.max_bytes,
        )

    def _path_gauges(self) -> metrics.Gauges:
        return metrics.path_gauges(
            backlog_messages=lambda: self.pipeline.in_flight.by_stream().total(),
            backlog_bytes=lambda: self.pipeline.in_flight.size_bytes,
            held_back=lambda: sum(len(work.batch) for work in self.pipeline.in_flight.back),
            reading_paused=lambda: float(self.pipeline.paused),
            registry_entries=lambda: len(self._base.registry),
            registry_topics=lambda: len(self._live.routes),
            tasks=lambda: len(asyncio.all_tasks()),
        )


async def _first(*works: Coroutine[Any, Any, Any], timeout: float) -> None:
    """Return when one of these is done or the time is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
