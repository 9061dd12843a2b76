"""What an operator should know of an installation: what ``config check --connect`` tries, and what else may be."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, NamedTuple

from gateway import mqtt, settings
from gateway.daemon import exposure, former_sessions, trial
from gateway.errors import GatewayError
from gateway.observability import ask
from gateway.spool import inspection
from gateway.storage import engines, holders, pools, readers
from gateway.storage.revisions import NAMES, Name

_CLOCK_SECONDS = 2.0
_CONNECTED = "mqtt"
"""Whose detail is where it is connected to; of any other ready component it is a warning."""
_FULL = 0.8
"""Of the spool's bound: it is told from there on."""
_AHEAD = dt.timedelta(days=2)
"""Partitions of these days should be there: the daemon makes a week's."""


class Finding(NamedTuple):
    """What was found of one thing: ``warning``: it works, but look at it; ``problem``: it does not work."""

    what: str
    state: Literal["ok", "warning", "problem"]
    text: str


async def findings(options: settings.Settings) -> AsyncIterator[Finding]:
    """One after another, as they are found. Nothing is changed anywhere.

    Raises:
        ConfigurationError: a DSN cannot be used.
    """
    for text in exposure.warnings(options):
        yield Finding("network", "warning", text)
    async for tried in trial.findings(options):
        yield Finding(tried.what, "ok" if tried.ok else "problem", tried.text)
    for name in NAMES:
        for finding in await _database(name, options):
            yield finding
    async for finding in _daemon(options):
        yield finding
    for finding in await _sessions(options):
        yield finding
    for finding in _spool(options.spool):
        yield finding


async def _database(name: Name, options: settings.Settings) -> list[Finding]:
    """What is not said by trying it out; nothing where it cannot be reached, which is told already."""
    database: settings.DatabaseSettings = getattr(options.databases, name)
    try:
        connection = await pools.connect(database.for_a_job(), application_name="gateway-doctor", name=name)
        try:
            with pools.translate(name):
                return [finding async for finding in _looked_at(connection, name)]
        finally:
            await connection.close(timeout=5)
    except GatewayError:
        return []


async def _looked_at(connection: Any, name: Name) -> AsyncIterator[Finding]:
    asked, now, answered = time.time(), await connection.fetchval("SELECT now()"), time.time()
    ahead = now.timestamp() - (asked + answered) / 2
    if abs(ahead) > _CLOCK_SECONDS + (answered - asked):
        yield Finding(
            "clock", "warning", f"that of {name} is {ahead:+.1f} s from ours: let both follow one (NTP)"
        )
    if others := await holders.of(connection, others=True):
        text = f"tables are locked by {others}: `gateway db upgrade` and partitions wait for them"
        yield Finding(name, "warning", f"{text}; SELECT pg_terminate_backend(PROCESS) ends one")
    bound = await readers.bound(connection, name)
    yield Finding(name, "ok", f"{len(bound)} log-ins read one tenant each (`gateway tenant reader list`)")
    if name == "timeseries":
        engine = await engines.detect(connection)
        today = dt.datetime.now(dt.UTC).date()
        if missing := await engine.missing_partitions(connection, today, today + _AHEAD):
            text = f"no partitions {', '.join(missing)}: the daemon makes them, and tells what is in the way"
            yield Finding(name, "warning", f"{text}; until then the DEFAULT partition takes the readings")


async def _daemon(options: settings.Settings) -> AsyncIterator[Finding]:
    """What the running one says of itself: also that another client took its session, or that it was gone."""
    try:
        status = await ask.ask(ask.address(options.observability))
    except GatewayError as error:
        yield Finding("daemon", "warning", str(error))
        return
    if not status["balanced"]:
        yield Finding(
            "daemon", "problem", "its books do not balance: a defect, please report; see `gateway status`"
        )
    for component, now in status["components"].items():
        if now["state"] != "ready":
            yield Finding("daemon", "problem", f"{component} is {now['state']}: {now['detail']}")
        elif now["detail"] and component != _CONNECTED:
            yield Finding("daemon", "warning", f"{component}: {now['detail']}")
    if status["ready"]:
        yield Finding("daemon", "ok", f"ready, version {status['version']}")


async def _sessions(options: settings.Settings) -> list[Finding]:
    """Those at the broker, as gateways have noted them: ours with the filters of the settings, none left behind."""
    try:
        kept = await former_sessions.find(options)
    except GatewayError:
        return []
    found = []
    wanted = {one.filter for one in mqtt.subscriptions(options.mqtt, options.streams)}
    for one in kept:
        age = dt.timedelta(seconds=int(former_sessions.unused_seconds(one)))
        if one.client_id == options.mqtt.client_id:
            other = wanted.symmetric_difference(one.state.filters)
            text = f"filters differ from the settings since the last start: {', '.join(sorted(other))}"
            found.append(
                Finding("session", "warning", text)
                if other
                else Finding("session", "ok", f"{one.client_id}: filters as configured")
            )
        elif one.state.filters and not former_sessions.is_in_use(one) and one.gateway != options.mqtt.gateway:
            text = f"{one.client_id} collects what nothing reads, for {age}: `gateway session end {one.client_id}`"
            found.append(Finding("session", "warning", text))
    return found


def _spool(options: settings.SpoolSettings) -> Iterator[Finding]:
    if options.folder is None:
        yield Finding(
            "spool", "warning", "there is none (spool.folder): what waits for a database waits at the broker"
        )
        return
    for folder in inspection.folders(options.folder):
        try:
            found = inspection.status(folder, options.max_bytes)
        except GatewayError as error:
            yield Finding("spool", "warning", str(error))
            continue
        damaged = [*found.quarantined, *found.unknown]
        if damaged:
            yield Finding(
                "spool",
                "warning",
                f"{folder}: damaged or foreign: {', '.join(damaged)}; `gateway spool verify`",
            )
        full = found.size_bytes >= _FULL * options.max_bytes
        text = f"{folder}: {found.records} messages, {found.size_bytes} of {options.max_bytes} bytes"
        yield Finding("spool", "problem" if full else "warning" if found.records else "ok", text)
