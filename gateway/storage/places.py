"""Where a DSN leads: the hosts in turn, of each name all addresses, and last those that were silent just now.

A name may have several addresses (both servers of a pair, IPv6 and IPv4), and the driver gives all of its time to the
first. So each address is a place of its own here, to which the driver is led under the host's name: certificates and
password files are for names.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from gateway.storage.libpq import Host, Target, share

_SILENT_SECONDS = 30.0
"""A place that did not answer is asked last for so long: each connection would wait for it again."""

_silent: dict[tuple[Host, str | None], float] = {}


class Place(NamedTuple):
    """One address of a host.

    Attributes:
        address: None: the driver finds it.
        seconds: time for it; None: no limit.
        alone: the host has no other address.
    """

    host: Host
    address: str | None
    seconds: float | None
    alone: bool = True

    def __str__(self) -> str:
        return str(self.host) if self.alone else f"{self.host} ({self.address})"

    def was_silent(self) -> None:
        """It did not answer in its time."""
        _silent[self.host, self.address] = time.monotonic() + _SILENT_SECONDS

    @property
    def is_silent(self) -> bool:
        """Whether it did not answer a while ago."""
        return _silent.get((self.host, self.address), 0.0) > time.monotonic()

    def loop(self) -> Any:
        """The event loop, as the driver must see it to come to this address."""
        return None if self.address is None else _Toward(self.address)


async def places(target: Target) -> AsyncIterator[Place]:
    """All places of the DSN, in the order in which they are to be tried; a name is looked up when its turn comes."""
    hosts = random.sample(target.hosts, len(target.hosts)) if target.shuffled else target.hosts
    later: list[Place] = []
    for host in hosts:
        for place in await _places_of(host, target):
            if place.is_silent:
                later.append(place)
            else:
                yield place
    for place in later:
        yield place


async def _places_of(host: Host, target: Target) -> list[Place]:
    """Of a name that cannot be looked up (now) one place without an address: the driver will say what is wrong."""
    unknown = Place(host, None, target.seconds)
    if host.name is None or host.name.startswith("/") or unknown.is_silent:
        return [unknown]
    addresses: Sequence[str] = ()
    with contextlib.suppress(OSError, UnicodeError):  # TimeoutError is an OSError
        async with asyncio.timeout(target.seconds):
            addresses = await _addresses(host.name)
    seconds = share(target.seconds, len(addresses))
    return [Place(host, address, seconds, len(addresses) == 1) for address in addresses] or [unknown]


async def _addresses(name: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _Toward:
    """The running event loop, but connections go to this address whatever the host's name is."""

    def __init__(self, address: str) -> None:
        self._loop, self._address = asyncio.get_running_loop(), address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Any, host: str, port: int, **options: Any) -> Any:
        if options.get("ssl"):
            options["server_hostname"] = host
        return await self._loop.create_connection(factory, self._address, port, **options)
