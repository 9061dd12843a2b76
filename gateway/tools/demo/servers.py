"""The demo's servers, ready for a gateway: started and prepared together, stopped together."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from gateway import settings
from gateway.tools.demo import broker, prepare, roster
from gateway.tools.demo.broker import DemoBroker
from gateway.tools.demo.folder import Folder
from gateway.tools.servers.ports import free_port
from gateway.tools.servers.postgres import EmbeddedPostgres

Tell = Callable[[str], None]
"""Takes a line for the user."""


@dataclasses.dataclass(frozen=True, slots=True)
class Servers:
    """What runs, and is ready for a gateway.

    Attributes:
        timeseries: the database of readings, as its owner.
        devices: id by serial number.
        health_port: where the gateway is configured to answer.
    """

    postgres: EmbeddedPostgres
    broker: DemoBroker
    timeseries: settings.DatabaseSettings
    devices: Mapping[str, uuid.UUID]
    health_port: int


@contextlib.asynccontextmanager
async def running(folder: Folder, tell: Tell) -> AsyncIterator[Servers]:
    """PostgreSQL with both databases and all devices, a broker, and a configuration that fits them.

    Raises:
        StartError: one of them does not start.
        StoreError: the databases cannot be prepared.
    """
    postgres, chosen = EmbeddedPostgres(folder.postgres, folder.log("postgres")), broker.choose(folder)
    try:
        with took("PostgreSQL", tell):
            await postgres.start()
        with took(chosen.name, tell):
            await chosen.start()
        yield await _prepare(folder, postgres, chosen, tell)
    finally:
        await chosen.stop()
        await postgres.stop()


async def _prepare(folder: Folder, postgres: EmbeddedPostgres, chosen: DemoBroker, tell: Tell) -> Servers:
    with took("databases and roles, migrated", tell):
        await prepare.databases(folder, postgres)
    members = (
        f"{len(roster.TENANTS)} tenants, {len(roster.TYPES)} device types, {len(roster.DEVICES)} devices"
    )
    with took(members, tell):
        devices = await prepare.provision(folder, postgres)
    health_port = free_port()
    prepare.configure(folder, postgres, chosen, health_port)
    return Servers(postgres, chosen, prepare.owned(folder, postgres, "timeseries"), devices, health_port)


def forget_environment() -> None:
    """Drop variables that may name production servers: none of them must reach a part of the demo."""
    for name in list(os.environ):
        if name.startswith(("GATEWAY", "PG")):
            del os.environ[name]


@contextlib.contextmanager
def took(what: str, tell: Tell) -> Iterator[None]:
    """Tell what was done in the block, and how long it took."""
    began = time.monotonic()
    yield
    tell(f"  ✓ {what:<44} {time.monotonic() - began:5.1f} s")
