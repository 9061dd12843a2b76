"""A bench from beginning to end: scratch entries, the scenarios one by one, and everything removed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway import settings
from gateway.errors import GatewayError, StandingError, UsageError
from gateway.storage import migrate
from gateway.tools.bench import machine, servers, shape, usage
from gateway.tools.bench.bench import Bench, Tell
from gateway.tools.bench.installation import BenchInstallation
from gateway.tools.bench.options import BenchOptions, Scenario
from gateway.tools.bench.report import BenchReport
from gateway.tools.bench.results import Findings
from gateway.tools.bench.rivals import Rival
from gateway.tools.bench.scenarios import drain, latency, memory, scale, start, steady
from gateway.tools.bench.scratch import Names, Scratch
from gateway.tools.bench.sight import TelemetrySight
from gateway.tools.stop import Stop

_MAY_NOT = "42501"

_RUN: Mapping[Scenario, Callable[[Bench], Awaitable[Findings]]] = {
    Scenario.STEADY: steady.run,
    Scenario.LATENCY: latency.run,
    Scenario.SCALE: scale.run,
    Scenario.MEMORY: memory.run,
    Scenario.START: start.run,
}


async def run_here(
    options: BenchOptions,
    superuser: settings.DatabaseSettings | None,
    tell: Tell,
    rivals: Sequence[Rival] = (),
) -> BenchReport:
    """Measure this machine, with servers of the bench's own; see :func:`gateway.tools.bench.servers.running`.

    Args:
        options: what to measure.
        superuser: on whose server the databases are made; None: one is started.
        tell: takes a line about what is going on.
        rivals: who takes part in the drain.

    Raises:
        GatewayError: something could not be started, or rows did not match messages.
    """
    return await _unless_stopped(_here(options, superuser, tell, rivals))


async def run_there(options: BenchOptions, installation: BenchInstallation, tell: Tell) -> BenchReport:
    """Measure an operator's installation.

    Raises:
        GatewayError: it could not be measured, or rows did not match messages.
    """
    return await _unless_stopped(_there(options, installation, tell))


async def remove(installation: BenchInstallation, name: str) -> None:
    """Remove what a bench that was killed left in an installation; its sessions expire by themselves.

    Raises:
        UsageError: no bench makes such a name.
    """
    names = Names(name)
    async with _connections(installation) as (metadata, timeseries):
        await Scratch(names, metadata, timeseries, alone=False).remove()


async def _unless_stopped(work: Coroutine[Any, Any, BenchReport]) -> BenchReport:
    """The result; on Ctrl-C or SIGTERM everything is removed first."""
    try:
        with Stop():
            return await work
    except asyncio.CancelledError:
        raise GatewayError("stopped; everything that the bench made is removed") from None


async def _here(
    options: BenchOptions, superuser: settings.DatabaseSettings | None, tell: Tell, rivals: Sequence[Rival]
) -> BenchReport:
    _forget_environment()
    with _folder(options) as folder:
        async with servers.running(folder, superuser) as installation:
            return await _run(options, installation, folder, tell, rivals)


async def _there(options: BenchOptions, installation: BenchInstallation, tell: Tell) -> BenchReport:
    _forget_environment()
    with _folder(options) as folder:
        try:
            return await _run(options, installation, folder, tell)
        except StandingError as error:
            if error.sqlstate != _MAY_NOT:
                raise
            raise UsageError(
                f"{error}: connect as the owner of the tables, --db-user gateway_owner --db-password-file …"
            ) from error


async def _run(
    options: BenchOptions,
    installation: BenchInstallation,
    folder: Path,
    tell: Tell,
    rivals: Sequence[Rival] = (),
) -> BenchReport:
    names = Names()
    names.check_streams(installation.configured.streams)
    began = time.monotonic()
    async with _connections(installation) as (metadata, timeseries):
        scratch = Scratch(names, metadata, timeseries, alone=installation.own)
        try:
            await scratch.enter()
            sight, postgres = await _sight(scratch, timeseries), await _postgres_pid(timeseries)
            bench = Bench(
                options, installation, scratch, sight, folder=folder, postgres_pid=postgres, tell=tell
            )
            findings = await _scenarios(bench, rivals)
        finally:
            tell("removing everything again")
            await scratch.remove()
        return BenchReport(
            machine=machine.describe(),
            versions=await machine.versions(timeseries),
            installation=installation.describe(),
            notes=bench.notes,
            seed=options.seed,
            seconds=time.monotonic() - began,
            tables=[table for found in findings for table in found.tables],
            ratios=[ratio for found in findings for ratio in found.ratios],
        )


async def _scenarios(bench: Bench, rivals: Sequence[Rival]) -> list[Findings]:
    run: Mapping[Scenario, Callable[[Bench], Awaitable[Findings]]] = {
        **_RUN,
        Scenario.DRAIN: functools.partial(drain.run, rivals=rivals),
    }
    try:
        if not bench.installation.own:
            bench.bound_by(await bench.kept())
        findings = []
        for scenario in bench.scenarios():
            await bench.still()
            findings.append(await run[scenario](bench))
        return findings
    finally:
        await bench.release()


async def _sight(scratch: Scratch, timeseries: Any) -> TelemetrySight:
    last = (await scratch.ids([shape.LAST]))[shape.LAST]
    return TelemetrySight(timeseries, tenant=scratch.tenant, last=uuid.UUID(last), stream=scratch.names.name)


async def _postgres_pid(timeseries: Any) -> int | None:
    """Whose child serves this connection, when it is on this machine."""
    return usage.parent_of(await timeseries.fetchval("SELECT pg_backend_pid()"), "postgres")


@contextlib.asynccontextmanager
async def _connections(installation: BenchInstallation) -> AsyncIterator[tuple[Any, Any]]:
    """To both databases, as the owner of their tables."""
    async with (
        migrate.session("metadata", installation.metadata) as metadata,
        migrate.session("timeseries", installation.timeseries) as timeseries,
    ):
        yield metadata, timeseries


@contextlib.contextmanager
def _folder(options: BenchOptions) -> Iterator[Path]:
    """A folder for the block, which only we can read."""
    try:
        made = tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=options.folder)
    except OSError as error:
        raise UsageError(
            f"cannot write into {options.folder}: {error.strerror}; choose another --folder"
        ) from error
    with made as name:
        yield Path(name)


def _forget_environment() -> None:
    """The settings are read; none of the variables may reach the gateway under test, over its own configuration."""
    for name in list(os.environ):
        if name.startswith("GATEWAY"):
            del os.environ[name]
