"""Several daemons under one supervisor: more than one core, one command.

Each worker is an ordinary ``gateway run`` with its own client id, session, COPY connections and spool folder, and with
the same share group, so the broker divides the messages among them. For brokers without shared subscriptions the
streams are divided instead. A worker that dies is started again under the same client id: what it had not
acknowledged comes again, to it. The supervisor answers for all of them on ``observability.port``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import aiohttp

from gateway import errors, settings, topics
from gateway.backoff import Backoff
from gateway.daemon import former_sessions, former_spools
from gateway.observability import ask, events, logs, merge
from gateway.observability.notify import Notify
from gateway.observability.server import Server
from gateway.tasks import Signals, TaskGuard

Divide = Literal["messages", "streams"]

_POLL_SECONDS = 1.0
_STEADY_SECONDS = 60.0
_BAD_CONFIGURATION = 4
_GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


def run(options: settings.Settings, config: Path | None, count: int, divide: Divide) -> int:
    """Run so many workers until told to stop; the worst of their exit codes.

    Raises:
        UsageError: there are fewer streams than workers to divide them among.
        StartError: the supervisor's own address cannot be had.
    """
    if divide == "streams" and count > (parts := len(_groups(options.streams))):
        raise errors.UsageError(
            f"{count} workers for {parts} streams: a stream goes to one worker, and so do those whose topics overlap; "
            "use fewer workers, or divide the messages (shared subscriptions)"
        )
    logs.configure(options.observability)
    return asyncio.run(Workers(options, config, count, divide).run())


class Worker:
    """One daemon process, started again whenever it dies."""

    def __init__(self, number: int, config: Path | None, environment: dict[str, str]) -> None:
        self.name = f"worker-{number}"
        self._config, self._environment = config, environment
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.status: dict[str, Any] | None = None
        self.metrics = ""
        self.exit_code = 0

    async def keep_running(self) -> None:
        """Task: start, wait for the end, start again after a while.

        Raises:
            ConfigurationError: it will not have its configuration; none of the others would.
        """
        backoff = Backoff(1, 30)
        while True:
            started = time.monotonic()
            self.exit_code = await self._live()
            self.status, self.metrics = None, ""
            if self.exit_code == _BAD_CONFIGURATION:
                raise errors.ConfigurationError(f"{self.name} refuses its configuration; its log says why")
            if time.monotonic() - started > _STEADY_SECONDS:
                backoff.reset()
            wait = backoff.next()
            events.worker_died(worker=self.name, exit_code=self.exit_code, retry_in=wait)
            await asyncio.sleep(wait)

    async def _live(self) -> int:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "run"),
            *(() if self._config is None else ("--config", str(self._config))),
            env={**self._environment, "GATEWAY__OBSERVABILITY__PORT": str(port)},
            preexec_fn=functools.partial(_die_with_parent, os.getpid()),
        )
        events.worker_started(worker=self.name, pid=self._process.pid)
        return await self._process.wait()

    async def ask(self, session: aiohttp.ClientSession) -> None:
        """Hear how it fares; what it does not say, it does not say."""
        try:
            self.status = await ask.ask(self.url)
            async with session.get(f"{self.url}/metrics") as answer:
                self.metrics = await answer.text()
        except (errors.UsageError, aiohttp.ClientError, TimeoutError):
            self.status = None

    async def stop(self, again: asyncio.Event, patience: float) -> None:
        """Tell it to stop, again when ``again`` is set; kill it when it has not after ``patience`` seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        ended = asyncio.create_task(process.wait())
        hurry = asyncio.create_task(again.wait())
        await asyncio.wait({ended, hurry}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.send_signal(signal.SIGTERM)
            await asyncio.wait({ended}, timeout=_GRACE_SECONDS)
        if not ended.done():
            process.kill()
        hurry.cancel()
        self.exit_code = await ended


class Workers:
    """The supervisor. Satisfies what the HTTP server asks of a report."""

    def __init__(self, options: settings.Settings, config: Path | None, count: int, divide: Divide) -> None:
        self._options = options
        self._workers = [
            Worker(number, config, _environment(options, number, count, divide)) for number in range(count)
        ]
        self._client_ids = {_client_id(options, number) for number in range(count)}
        self._spools = [_spool(options, number) for number in range(count)]
        self._stopping = False
        self._tasks = TaskGuard()

    async def run(self) -> int:
        """Start all, keep them running until a signal, stop all; the worst exit code."""
        signals, server = Signals(), Server(self._options.observability, self)
        await server.open()
        try:
            with Notify() as notify:
                for worker in self._workers:
                    self._tasks.start(worker.name, worker.keep_running())
                self._tasks.start("ask", self._ask())
                self._tasks.start("sessions", former_sessions.watch(self._options, self._client_ids))
                former_spools.tell(self._options.spool, self._spools)
                self._tasks.start("watchdog", notify.watch())
                notify.ready(f"{len(self._workers)} workers")
                try:
                    await self._tasks.watch(signals.stop)
                finally:
                    notify.stopping()
                    await self._stop(signals.at_once)
        finally:
            await server.close()
        return max(worker.exit_code for worker in self._workers)

    async def _stop(self, again: asyncio.Event) -> None:
        self._stopping = True
        # The tasks first, or they would start again what is told to stop.
        await self._tasks.cancel()
        patience = self._options.shutdown.deadline + _GRACE_SECONDS
        await asyncio.gather(*(worker.stop(again, patience) for worker in self._workers))

    async def _ask(self) -> None:
        """Task: know how the workers fare."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_GRACE_SECONDS)) as session:
            while True:
                await asyncio.gather(*(worker.ask(session) for worker in self._workers))
                await asyncio.sleep(_POLL_SECONDS)

    # what the HTTP server asks -----------------------------------------------------------------

    @property
    def health(self) -> Workers:
        """Itself: it says what ``/ready`` asks."""
        return self

    @property
    def ready(self) -> bool:
        """Whether all workers are."""
        return bool(self.as_dict()["ready"]) and not self._stopping

    def as_dict(self) -> dict[str, Any]:
        """The status of all workers as one."""
        return merge.statuses(
            {worker.name: worker.status for worker in self._workers}, stopping=self._stopping
        )

    def exposition(self) -> bytes:
        """The metrics of all workers on one page."""
        return merge.expositions({worker.name: worker.metrics for worker in self._workers})


def _environment(options: settings.Settings, number: int, count: int, divide: Divide) -> dict[str, str]:
    """What makes this worker differ from its configuration file."""
    name, group = options.mqtt.client_id, options.mqtt.share_group or options.mqtt.client_id
    own = {
        "GATEWAY__MQTT__CLIENT_ID": _client_id(options, number),
        "GATEWAY__MQTT__WORKER_OF": name,
        "GATEWAY__OBSERVABILITY__LISTEN": "127.0.0.1",
    }
    if divide == "messages":
        own["GATEWAY__MQTT__SHARE_GROUP"] = group
    else:
        mine = [stream for group in _groups(options.streams)[number::count] for stream in group]
        own["GATEWAY__STREAMS"] = json.dumps(
            [stream.model_dump(mode="json", exclude_unset=True) for stream in mine]
        )
    if folder := _spool(options, number):
        own["GATEWAY__SPOOL__FOLDER"] = str(folder)
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")
    }
    return {**inherited, **own}


def _client_id(options: settings.Settings, number: int) -> str:
    return f"{options.mqtt.client_id}-{number}"


def _spool(options: settings.Settings, number: int) -> Path | None:
    folder = options.spool.folder
    return None if folder is None else folder / f"worker-{number}"


def _groups(streams: Sequence[settings.StreamSettings]) -> list[list[settings.StreamSettings]]:
    """Streams whose topics overlap are one worker's: two would both take a message that matches both."""
    groups: list[list[settings.StreamSettings]] = []
    for stream in streams:
        near = [group for group in groups if any(_overlap(stream, one) for one in group)]
        groups = [group for group in groups if group not in near]
        groups.append(sorted([*itertools.chain(*near), stream], key=streams.index))
    return sorted(groups, key=lambda group: streams.index(group[0]))


def _overlap(one: settings.StreamSettings, other: settings.StreamSettings) -> bool:
    return topics.overlap(topics.Template(one.topic).filter, topics.Template(other.topic).filter)


def _die_with_parent(parent: int) -> None:
    """In the child: stop when the supervisor is killed; a second supervisor would fight it for the session."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked for the signal, which then never comes
        os._exit(1)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
