"""Sessions at the broker that an earlier set-up of this gateway left behind: read empty, and subscribed to nothing.

``--workers 2`` uses other client ids than one process does, so a change leaves sessions that go on collecting messages
and that nothing reads. Such a session is taken over: its subscriptions end first, then what it holds is stored.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Collection, Sequence

import msgspec

from gateway import errors, mqtt, settings
from gateway.daemon import foreground
from gateway.ingest.assembly import Foundation, IngestPath, live_path
from gateway.observability import events
from gateway.observability.health import Component, ComponentState, Health
from gateway.storage import pools
from gateway.writer import session_store
from gateway.writer.session_store import Kept

_LOOK_SECONDS = 15.0
_DEAD_AFTER = 180.0
"""A session in use is saved each 20 s: one that was not for so long belonged to a process that is dead."""
_PROOFS = 4
"""So often must our own sessions be seen saved, one look after another, while another one is not: it is dead then."""
_QUIET_SECONDS = 3.0
"""A session is empty when the broker has sent nothing for so long while nothing was unacknowledged."""
_POLL_SECONDS = 0.05
_BUFFER_BYTES = 8 << 20
_FIRST_NUMBERS = itertools.count(1 << 48, 1 << 48)
"""Delivery numbers that neither the daemon's own source nor another session has: dead letters are known by them."""


class FormerSessionResult(msgspec.Struct):
    """What was in the session. True at every instant, also when its reading ends early."""

    messages: int = 0


async def find(options: settings.Settings) -> list[Kept]:
    """All sessions that gateways on this database have or had.

    Raises:
        StoreError: the database cannot be asked.
    """
    pool = pools.Pool("timeseries", options.databases.timeseries, size=1)
    try:
        return await session_store.all_kept(pool.connection)
    finally:
        await pool.close()


def unused_seconds(kept: Kept) -> float:
    """How long ago a process last said that it uses the session."""
    return time.time() - kept.state.at_us / 1e6


def is_in_use(kept: Kept) -> bool:
    """Whether a process has the session, as far as is known."""
    return kept.state.in_use and unused_seconds(kept) < _DEAD_AFTER


async def watch(options: settings.Settings, own: Collection[str], component: Component | None = None) -> None:
    """Task: end what this gateway left under client ids that are not its ``own`` any more; name what others left."""
    component = component or Component("sessions")
    component.ready()
    named: set[str] = set()
    silence = Silence(own)
    while True:
        try:
            await _end_all(options, silence, named)
            component.ready()
        except errors.StoreError:
            silence.interrupted()  # told by the path, which needs the same database
        except errors.GatewayError as error:
            component.failed(str(error))
        await asyncio.sleep(_LOOK_SECONDS)


async def _end_all(options: settings.Settings, silence: Silence, named: set[str]) -> None:
    found = await find(options)
    silence.look(found)
    for kept in filter(silence.is_left, found):
        if kept.gateway == options.mqtt.gateway:
            await end(options, kept.client_id)
        elif kept.client_id not in named:
            named.add(kept.client_id)
            _tell(kept)


class Silence:
    """Which sessions are left: given up, silent for very long, or silent while others are saved.

    The last is soonest, needs no clock of another host, and is no evidence while the database takes no writes.

    Args:
        own: client ids in use here.
    """

    def __init__(self, own: Collection[str]) -> None:
        self._own = own
        self._own_us = 0
        self._proofs: dict[str, tuple[int, int]] = {}  # by client id: when it was saved, and the proofs since

    def look(self, found: Sequence[Kept]) -> None:
        """All sessions as they are now."""
        own_us = max((kept.state.at_us for kept in found if kept.client_id in self._own), default=0)
        saved, self._own_us = own_us > self._own_us, own_us
        for kept in found:
            at_us, proofs = self._proofs.get(kept.client_id, (0, 0))
            same = kept.state.at_us == at_us
            self._proofs[kept.client_id] = kept.state.at_us, proofs + saved if same else 0

    def interrupted(self) -> None:
        """A look failed: others may have been kept from saving as well."""
        self._proofs.clear()

    def is_left(self, kept: Kept) -> bool:
        """Whether no process has this session, and it still collects messages."""
        if kept.client_id in self._own or not kept.state.filters:
            return False
        return not is_in_use(kept) or self._proofs[kept.client_id][1] >= _PROOFS


async def end(
    options: settings.Settings,
    client_id: str,
    result: FormerSessionResult | None = None,
    tell: foreground.Tell = lambda _waits: None,
) -> None:
    """Take the session of this client id over, unsubscribe all it has, and store what it holds.

    Args:
        result: counts what was read.

    Raises:
        StoreError: a database must be mended, or was away for too long.
        UsageError: the broker does not let us have the session.
    """
    result = result or FormerSessionResult()
    alone = _alone(options, client_id)
    base = Foundation(alone, Health(), patience=foreground.PATIENCE)
    component, first = base.health.component("mqtt"), next(_FIRST_NUMBERS)
    source = mqtt.open_source(alone.mqtt, (), component, base.sessions, first=first)
    path = live_path(base, source)
    await foreground.run(base, path, _read_empty(base, path, source, result), tell)
    events.mqtt_session_emptied(client_id=client_id, messages=result.messages)


def _alone(options: settings.Settings, client_id: str) -> settings.Settings:
    """The settings of a small daemon that has this session, and no spool."""
    own = options.mqtt.model_copy(update={"client_id": client_id, "worker_of": options.mqtt.gateway})
    return foreground.for_a_job(
        options.model_copy(
            update={
                "mqtt": own,
                "spool": options.spool.model_copy(update={"folder": None}),
                "buffer": settings.BufferSettings(max_bytes=_BUFFER_BYTES),
                "writer": options.writer.model_copy(update={"connections": 1}),
            }
        )
    )


async def _read_empty(
    base: Foundation, path: IngestPath, source: mqtt.Source, result: FormerSessionResult
) -> None:
    running = asyncio.create_task(source.run(path.pipeline), name="source")
    try:
        await _connected(base)
        while (received := _received(path)) != result.messages or path.pipeline.in_flight.by_stream().total():
            result.messages = received
            await asyncio.sleep(_QUIET_SECONDS)
        source.stop()
        await path.pipeline.wait_settled()
        await source.close()
        await base.leave()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _connected(base: Foundation) -> None:
    """Connected, all subscriptions ended, and time for the first messages to come."""
    component, deadline = base.health.component("mqtt"), time.monotonic() + foreground.PATIENCE
    while component.state is not ComponentState.READY or base.sessions.filters:
        if time.monotonic() > deadline:
            raise errors.UsageError(
                f"the session of {base.sessions.client_id} could not be taken over: {component.detail}"
            )
        await asyncio.sleep(_POLL_SECONDS)
    await asyncio.sleep(_QUIET_SECONDS)


def _received(path: IngestPath) -> int:
    return sum(tally.received for tally in path.routes.tallies.values())


def _tell(kept: Kept) -> None:
    events.mqtt_session_left(
        client_id=kept.client_id,
        last_used_seconds=unused_seconds(kept),
        remedy=f"gateway session end {kept.client_id}",
    )
