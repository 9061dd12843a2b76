"""A proxy that loses our acknowledgements, as an RST does that overtakes them when a daemon is killed."""

from __future__ import annotations

import asyncio

from tests.support.fake_broker import packets_of
from tests.support.proxy import Leg, Proxy

_PUBACK = 4


class AckLeg(Leg):
    """A connection whose PUBACKs may get lost, with all that comes behind the first: a stream loses its end."""

    def __init__(self, proxy: LostAcks, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        super().__init__(client, server)
        self._proxy, self._begun, self._lost = proxy, b"", False

    async def from_client(self, read: bytes) -> None:
        """Pass on whole packets, but for those that are to be lost."""
        packets, self._begun = packets_of(self._begun + read)
        passed: list[bytes] = []
        for packet in packets:
            self._lost |= self._proxy.losing and packet[0] >> 4 == _PUBACK
            if not self._lost:
                passed.append(packet)
        await self.to_server(b"".join(passed))


class LostAcks(Proxy):
    """In front of a broker; loses all acknowledgements while :attr:`losing`."""

    losing = False

    def leg(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> Leg:
        """A connection."""
        return AckLeg(self, client, server)
