"""Wires the paths: what they stand on, the live one, and with a spool the one that drains it. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import zoneinfo
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from gateway import decoders, errors, settings
from gateway.devices.registry import Registry
from gateway.ingest.deferred import Deferred
from gateway.ingest.dispatch import Dispatch
from gateway.ingest.held_back import HeldBack
from gateway.ingest.in_flight import InFlight
from gateway.ingest.intake import Intake
from gateway.ingest.new_chunks import NewChunks
from gateway.ingest.overflow import NoOverflow, Overflow, SpoolOverflow
from gateway.ingest.pipeline import Pipeline
from gateway.ingest.queue import Queue
from gateway.ingest.recognition import Recognition
from gateway.ingest.routes import Preparation, Routes, Stream
from gateway.ingest.settlement import Settlement, SourceControl
from gateway.ingest.spool_source import SpoolControl, SpoolSource
from gateway.ingest.stall import StallWatchdog
from gateway.ingest.suspects import Guard, Suspects
from gateway.messages import Delivery, Message, Session, digest
from gateway.observability import metrics
from gateway.observability.health import Health
from gateway.sessions.redeliveries import Redeliveries
from gateway.sessions.tracking import Sessions, Store
from gateway.spool.spool import Spool
from gateway.storage import pools
from gateway.storage.retry import Retrying
from gateway.writer.copy import Writer
from gateway.writer.experience import Experience
from gateway.writer.layouts import TELEMETRY
from gateway.writer.ledger import Ledger
from gateway.writer.probe import probe
from gateway.writer.session_store import SessionTable

Task = tuple[str, Callable[[], Coroutine[Any, Any, None]]]
"""Name, and what it does."""

_DRAIN_BYTES = 8 << 20
_LARGE_BATCH_BYTES = 2 << 20
"""Of a batch of large messages: others wait for it where there is one connection."""
_DRAIN_TOPICS = 50_000


class Foundation:
    """What the paths of a process stand on: connections, registry, sessions, spool. Making it does no I/O.

    Args:
        patience: seconds that databases which are away are waited for, and none for those that must be mended: their
            errors end the tasks. None: for ever, in both cases.

    Attributes:
        for_a_job: it is a command that waits, no daemon.
        tasks: must run for messages to move.
    """

    def __init__(self, options: settings.Settings, health: Health, *, patience: float | None = None) -> None:
        self.options, self.health, self._bound = options, health, patience
        self.for_a_job = patience is not None
        self._metadata = pools.Pool("metadata", options.databases.metadata, size=2)
        self.timeseries = pools.Pool("timeseries", options.databases.timeseries, size=1)
        self.stores = self.retrying("timeseries")
        preparation = Preparation(options.validation)
        self.registry = Registry(self._metadata, options.registry, health.component("metadata"), preparation)
        self.experience = Experience()
        self.chunks = NewChunks(options.validation.new_chunks_per_hour)
        folder = options.spool.folder
        self.spool = None if folder is None else Spool(folder, options.spool, digest)
        self.suspects = Suspects(folder)
        self.redeliveries = Redeliveries()
        self.sessions = Sessions(
            options.mqtt.client_id, self._session_stores(), self.redeliveries, health.component("session")
        )
        self.tasks: list[Task] = [("registry", self.registry.follow), ("session", self.sessions.keep)]

    def open(self) -> None:
        """Take possession of the spool, where there is one.

        Raises:
            StartError: its folder cannot be used.
        """
        if self.spool is not None:
            self.spool.open()
            if (kept := self.spool.session.read()) is not None:
                self.sessions.adopt(kept)
            self.suspects.open()
            self.health.component("spool").ready()

    async def leave(self) -> None:
        """The source is closed: make durable what the broker is known to have read."""
        with contextlib.suppress(errors.GatewayError):
            await self.sessions.save(in_use=False)

    async def close(self) -> None:
        """Close all connections and the spool; the tasks must have ended."""
        for pool in (self._metadata, self.timeseries):
            await pool.close()
        self.suspects.close()
        if self.spool is not None:
            self.spool.close()

    def retrying(self, component: str) -> Retrying:
        """Tries of one path against one server."""
        options = self.options.writer
        return Retrying(
            self.health.component(component),
            shortest=options.retry_min,
            longest=options.retry_max,
            standing=options.standing_retry,
            bound=self._bound,
        )

    def note(self, numbers: Sequence[int], digests: Sequence[bytes]) -> None:
        """These came to their end, and would look new if they were delivered again."""
        self.redeliveries.enter(numbers, digests)
        self.sessions.note()

    def spooled_before(self, message: Message, delivery: Delivery) -> bool:
        """Whether an earlier process spooled this very message."""
        spool, packet_id = self.spool, message.packet_id
        if (
            spool is None
            or packet_id is None
            or delivery.replayed
            or not (delivery.resumed and message.duplicate)
        ):
            return False
        return spool.knows(packet_id, digest(message), delivery.session.id, self.sessions.believes)

    async def probe(self) -> None:
        """See that the time-series database takes readings.

        Raises:
            StoreError: it does not.
        """
        async with self.timeseries.connection() as connection:
            await probe(connection, "timeseries", (TELEMETRY,))

    def _session_stores(self) -> list[Store]:
        mqtt = self.options.mqtt
        table = SessionTable(mqtt.client_id, mqtt.gateway, self.timeseries.connection)
        return [table] if self.spool is None else [self.spool.session, table]


class IngestPath(msgspec.Struct):
    """A path, assembled: its tasks are not started, its connections not opened.

    Attributes:
        tasks: must run for messages to move; the names begin with the path's.
        writers: its COPY connections; to be closed when the tasks have ended.
    """

    pipeline: Pipeline
    routes: Routes
    tasks: list[Task]
    writers: list[Writer]

    async def close(self) -> None:
        """Close its connections; the tasks must have ended."""
        for writer in self.writers:
            await writer.close()


class LivePath(IngestPath):
    """The path of what comes from outside.

    Attributes:
        sink: takes deliveries, with care after an end without a word.
    """

    sink: Guard


class SpoolPath(IngestPath):
    """The path of what was spooled.

    Attributes:
        source: reads the spool.
    """

    source: SpoolSource


def live_path(base: Foundation, source: SourceControl) -> LivePath:
    """The path from this source; with a spool what waits too long goes there."""
    options = base.options
    routes = Routes(
        _streams(options),
        base.registry,
        max_topics=options.registry.max_entries,
        longest_topic=options.mqtt.max_topic_bytes,
    )
    overflow, tasks = _overflow(base)
    made = _path(
        base,
        source,
        metrics.LIVE,
        routes=routes,
        ledger=Ledger(options.mqtt.client_id, base.sessions, base.note),
        redeliveries=base.redeliveries,
        overflow=overflow,
        connections=options.writer.connections,
        hold_back=options.writer.hold_back,
        max_bytes=options.buffer.max_bytes,
    )
    sink = Guard(base.suspects, made.pipeline, source)
    return LivePath(made.pipeline, routes, [*tasks, *made.tasks, ("careful", sink.run)], made.writers, sink)


def spool_path(base: Foundation) -> SpoolPath | None:
    """A path for what was spooled: little memory, one connection, a ledger that is older than all live rows.

    None: there is no spool.
    """
    options = base.options
    if base.spool is None:
        return None
    routes = Routes(_streams(options), base.registry, max_topics=_DRAIN_TOPICS)
    control = SpoolControl(base.spool)
    made = _path(
        base,
        control,
        metrics.SPOOL,
        routes=routes,
        ledger=Ledger(options.mqtt.client_id, base.sessions, lambda _numbers, _digests: None),
        redeliveries=Redeliveries(),
        overflow=NoOverflow(base.stores),
        connections=1,
        hold_back=options.writer.hold_back if base.for_a_job else options.spool.hold_back,
        max_bytes=_DRAIN_BYTES,
    )
    source = SpoolSource(base.spool, control, made.pipeline, base.health.component("spool"), base.suspects)
    progress = StallWatchdog(
        source,
        None,
        routes.tallies,
        base.health,
        limit=options.watchdog.no_progress,
        name="drain",
        servers=("metadata", "timeseries"),
    )
    tasks = [*made.tasks, ("spool/drain", source.run), ("spool/progress", progress.watch)]
    return SpoolPath(made.pipeline, routes, tasks, made.writers, source)


def _overflow(base: Foundation) -> tuple[Overflow, list[Task]]:
    if base.spool is None:
        return NoOverflow(base.stores), []
    made = SpoolOverflow(
        base.spool,
        base.health.component("spool"),
        base.stores,
        spooled=base.note,
        after=base.options.spool.after,
        probe=base.probe,
    )
    return made, [("spool/overflow", made.watch), ("spool/disk", made.watch_disk)]


def _path(
    base: Foundation,
    source: SourceControl,
    name: str,
    *,
    routes: Routes,
    ledger: Ledger,
    redeliveries: Redeliveries,
    overflow: Overflow,
    connections: int,
    hold_back: float,
    max_bytes: int,
) -> IngestPath:
    """A pipeline, its tasks and its COPY connections; ``name`` stands before the tasks' own."""
    options, batch = base.options, base.options.batch
    recognition = _recognition(base, redeliveries, ledger)
    held = InFlight(
        Queue(max_rows=batch.max_rows, max_bytes=batch.max_bytes),
        Queue(max_rows=batch.max_rows, max_bytes=min(batch.max_bytes, _LARGE_BATCH_BYTES)),
    )
    go = asyncio.Event()
    held_back = HeldBack(
        held,
        base.experience,
        limit=hold_back,
        most_bytes=max_bytes // 2,
        stores=base.stores,
        component=base.health.component("held back" if name == metrics.LIVE else f"{name} held back"),
        wake=go.set,
    )
    pipeline = Pipeline(
        held,
        Settlement(source, held, max_bytes=max_bytes),
        routes=routes,
        intake=Intake(options.validation, routes, base.chunks),
        recognition=recognition,
        held_back=held_back,
        dispatch=Dispatch(held, held_back, go, linger=batch.linger),
        overflow=overflow,
    )
    deferred = _deferred(base, pipeline, recognition, overflow)
    tasks: list[Task] = [
        (f"{name}/resolve", deferred.resolve),
        (f"{name}/recognise", deferred.recognise),
        (f"{name}/decode", deferred.decode),
    ]
    writers = [_writer(base, ledger, name) for _ in range(connections)]
    for number, writer in enumerate(writers):
        tasks.append((f"{name}/writer-{number}", functools.partial(pipeline.write, writer)))
    return IngestPath(pipeline, routes, tasks, writers)


def _recognition(base: Foundation, redeliveries: Redeliveries, ledger: Ledger) -> Recognition:
    async def load(session: Session, since: int) -> None:
        await base.sessions.look_up()
        async with base.timeseries.connection() as connection:
            await ledger.load(connection, session, since)

    return Recognition(redeliveries, ledger, spooled=base.spooled_before, load=load)


def _deferred(base: Foundation, pipeline: Pipeline, recognition: Recognition, overflow: Overflow) -> Deferred:
    devices = base.retrying("metadata")
    return Deferred(
        pipeline, base.registry, recognition, stores=base.stores, devices=devices, overflow=overflow
    )


def _writer(base: Foundation, ledger: Ledger, path: str) -> Writer:
    options = base.options
    return Writer(
        options.databases.timeseries,
        ledger,
        horizon=options.writer.message_id_horizon,
        experience=base.experience,
        path=path,
        max_row_bytes=options.validation.max_row_bytes,
        letters=options.dead_letters,
    )


def _streams(options: settings.Settings) -> list[Stream]:
    rules = options.validation
    zone = None if rules.naive_zone is None else zoneinfo.ZoneInfo(rules.naive_zone)
    limits = decoders.Limits(rules.max_depth, rules.max_readings, rules.max_values, zone)
    return [
        Stream(
            stream,
            decoders.build(stream.decoder, msgspec.structs.replace(limits, time_keys=stream.time_keys)),
        )
        for stream in options.streams
    ]
