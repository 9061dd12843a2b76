"""Wires the path: stages, connections, and with a spool the second path that drains it. Decides nothing."""

from __future__ import annotations

import contextlib
import functools
import zoneinfo
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import msgspec

from gateway import decoders, errors, settings
from gateway.devices.registry import Registry
from gateway.ingest.overflow import Overflow
from gateway.ingest.pipeline import Pipeline
from gateway.ingest.recognition import Recognition
from gateway.ingest.routes import Preparation, Routes, Stream
from gateway.ingest.spool_source import SpoolSource
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

Task = Callable[[], Coroutine[Any, Any, None]]

_DRAIN_BYTES = 8 << 20
_DRAIN_TOPICS = 50_000


class IngestPath:
    """The path and what it stands on, but for its source. Making it does no I/O.

    Args:
        patience: seconds that databases which are away are waited for, and none for those that must be mended: their
            errors end the tasks. None: for ever, in both cases.
    """

    def __init__(self, options: settings.Settings, health: Health, *, patience: float | None = None) -> None:
        self._options, self._health, self._bound = options, health, patience
        self._metadata = pools.Pool("metadata", options.databases.metadata, size=2)
        self.timeseries = pools.Pool("timeseries", options.databases.timeseries, size=1)
        self.stores = self._patience("timeseries")
        self.registry = Registry(
            self._metadata, options.registry, health.component("metadata"), Preparation(options.validation)
        )
        self._writers: list[Writer] = []
        self._experience = Experience()
        self._tasks: list[tuple[str, Task]] = []
        self.routes = Routes(
            _streams(options),
            self.registry,
            max_topics=options.registry.max_entries,
            longest_topic=options.mqtt.max_topic_bytes,
        )
        self.spool = self._spool()
        self._redeliveries = Redeliveries()
        self.sessions = Sessions(
            options.mqtt.client_id, self._session_stores(), self._redeliveries, health.component("session")
        )
        self._tasks.append(("session", self.sessions.keep))
        self._overflow = self._make_overflow()
        ledger = Ledger(options.mqtt.client_id, self.sessions, self._noted)
        self.suspects = Suspects(options.spool.folder)
        self.pipeline = self._pipeline(options, self.routes, ledger, self._redeliveries, self._overflow)
        self.drained = Routes(_streams(options), self.registry, max_topics=_DRAIN_TOPICS)
        self.sink = Guard(self.suspects, self.pipeline)
        self._tasks.append(("careful", self.sink.run))
        self.drain = self._make_drain()

    def tasks(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """What must run for messages to move, by name."""
        yield "registry", self.registry.follow()
        for name, task in self._tasks:
            yield name, task()

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
            self._health.component("spool").ready()

    async def leave(self) -> None:
        """The source is closed: make durable what the broker is known to have read."""
        with contextlib.suppress(errors.GatewayError):
            await self.sessions.save(in_use=False)

    async def close(self) -> None:
        """Close all connections and the spool; the tasks must have ended."""
        for writer in self._writers:
            await writer.close()
        for pool in (self._metadata, self.timeseries):
            await pool.close()
        self.suspects.close()
        if self.spool is not None:
            self.spool.close()

    def _spool(self) -> Spool | None:
        options = self._options.spool
        return None if options.folder is None else Spool(options.folder, options, digest)

    def _make_overflow(self) -> Overflow | None:
        if self.spool is None:
            return None
        made = Overflow(
            self.spool,
            self._health.component("spool"),
            self.stores,
            spooled=self._noted,
            after=self._options.spool.after,
            probe=self._probe,
        )
        self._tasks += [("spool/overflow", made.watch), ("spool/disk", made.watch_disk)]
        return made

    def _make_drain(self) -> SpoolSource | None:
        """A path for what was spooled: little memory, one connection, a ledger that is older than all live rows."""
        if self.spool is None:
            return None
        daemon = self._bound is None
        hold_back = self._options.spool.hold_back if daemon else self._options.writer.hold_back
        small = self._options.model_copy(
            update={
                "buffer": settings.BufferSettings(max_bytes=_DRAIN_BYTES),
                "writer": self._options.writer.model_copy(update={"connections": 1, "hold_back": hold_back}),
            }
        )
        ledger = Ledger(self._options.mqtt.client_id, self.sessions, lambda _numbers, _digests: None)
        pipeline = self._pipeline(small, self.drained, ledger, Redeliveries(), None, name=metrics.SPOOL)
        drain = SpoolSource(self.spool, pipeline, self._health.component("spool"), self.suspects)
        progress = StallWatchdog(
            drain,
            None,
            self.drained.tallies,
            self._health,
            limit=self._options.watchdog.no_progress,
            name="drain",
            servers=("metadata", "timeseries"),
        )
        self._tasks += [("spool/drain", drain.run), ("spool/progress", progress.watch)]
        return drain

    def _pipeline(
        self,
        options: settings.Settings,
        routes: Routes,
        ledger: Ledger,
        redeliveries: Redeliveries,
        overflow: Overflow | None,
        *,
        name: str = metrics.LIVE,
    ) -> Pipeline:
        """A pipeline, its tasks and its COPY connections; ``name`` stands before the tasks' own."""

        async def load(session: Session, since: int) -> None:
            await self.sessions.look_up()
            async with self.timeseries.connection() as connection:
                await ledger.load(connection, session, since)

        made = Pipeline(
            options,
            routes=routes,
            registry=self.registry,
            recognition=Recognition(redeliveries, ledger, spooled=self._spooled_before, load=load),
            stores=self.stores,
            devices=self._patience("metadata"),
            experience=self._experience,
            component=self._health.component("held back" if name == metrics.LIVE else f"{name} held back"),
            overflow=overflow,
        )
        self._tasks += [
            (f"{name}/resolve", made.aside.resolve),
            (f"{name}/recognise", made.aside.recognise),
        ]
        for number in range(options.writer.connections):
            horizon = options.writer.message_id_horizon
            writer = Writer(
                options.databases.timeseries,
                ledger,
                horizon=horizon,
                experience=self._experience,
                path=name,
                max_row_bytes=options.validation.max_row_bytes,
                letters=options.dead_letters,
            )
            self._writers.append(writer)
            self._tasks.append((f"{name}/writer-{number}", functools.partial(made.write, writer)))
        return made

    def _noted(self, numbers: Sequence[int], digests: Sequence[bytes]) -> None:
        """These would look new if they were delivered again."""
        self._redeliveries.enter(numbers, digests)
        self.sessions.note()

    def _session_stores(self) -> list[Store]:
        mqtt = self._options.mqtt
        table = SessionTable(mqtt.client_id, mqtt.gateway, self.timeseries.connection)
        return [table] if self.spool is None else [self.spool.session, table]

    def _spooled_before(self, message: Message, delivery: Delivery) -> bool:
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

    async def _probe(self) -> None:
        async with self.timeseries.connection() as connection:
            await probe(connection, "timeseries", (TELEMETRY,))

    def _patience(self, component: str) -> Retrying:
        options = self._options.writer
        return Retrying(
            self._health.component(component),
            shortest=options.retry_min,
            longest=options.retry_max,
            standing=options.standing_retry,
            bound=self._bound,
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
