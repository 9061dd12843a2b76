"""The daemon's own little HTTP server.

===========  ================================================================================
``/live``    200 as long as the event loop runs
``/ready``   200 when messages flow, else 503; JSON: state and last error of each component
``/metrics`` Prometheus
``/status``  JSON, what ``gateway status`` prints: see :class:`gateway.observability.status.StatusReport`
===========  ================================================================================

Nothing here changes anything, and nothing here runs but at a request.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any, Protocol

from aiohttp import web

from gateway import errors, settings
from gateway.observability import metrics
from gateway.observability.doorkeeper import Doorkeeper


class Readiness(Protocol):
    """What ``/ready`` asks."""

    @property
    def ready(self) -> bool:
        """Whether messages flow."""

    def as_dict(self) -> dict[str, Any]:
        """State and last error of each component."""


class Answers(Protocol):
    """What the server asks; :class:`gateway.observability.status.StatusReport` is one."""

    @property
    def health(self) -> Readiness:
        """The components."""

    def as_dict(self) -> dict[str, Any]:
        """What ``/status`` tells."""

    def exposition(self) -> bytes:
        """What ``/metrics`` tells."""


class Server:
    """Answers on ``observability.listen``:``observability.port``; port 0 opens nothing."""

    def __init__(self, observability: settings.ObservabilitySettings, report: Answers) -> None:
        self._listen, self._port = observability.listen, observability.port
        self._report = report
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._doorkeeper: Doorkeeper | None = None

    async def open(self) -> None:
        """Listen.

        Raises:
            StartError: the address cannot be had.
        """
        if self._port == 0:
            return
        # Answers are made in memory, a second is plenty; a connection held open must not hold the stop.
        runner = web.AppRunner(self._app(), access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        try:
            await self._admit(runner)
        except OSError as error:
            await runner.cleanup()
            raise errors.StartError(
                f"cannot listen on {self._listen}:{self._port} for health and metrics: {_why(error)}; "
                "set observability.port to a free one (0: none), observability.listen to an address we have"
            ) from error
        self._runner = runner

    async def _admit(self, runner: web.AppRunner) -> None:
        assert runner.server is not None
        self._doorkeeper = Doorkeeper(runner.server)
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._doorkeeper, self._listen, self._port)

    async def close(self) -> None:
        """Stop answering. Idempotent."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application()
        app.on_response_prepare.append(self._answers)
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/status", self._status)
        return app

    async def _answers(self, request: web.Request, _response: web.StreamResponse) -> None:
        if self._doorkeeper is not None:
            self._doorkeeper.answered(request.protocol)

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        health = self._report.health
        return web.json_response(health.as_dict(), status=200 if health.ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._report.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._report.as_dict())


def _why(error: OSError) -> str:
    """The plain reason, without the address that asyncio puts before it."""
    if error.errno is None or error.errno not in errno.errorcode:
        return str(error.strerror)
    return os.strerror(error.errno)
