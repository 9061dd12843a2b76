"""A proxy that loses our acknowledgements, as an RST does that overtakes them when a daemon is killed."""

from __future__ import annotations

import asyncio

from tests.support.fake_broker import packets_of
from tests.support.proxy import Leg, Proxy

_PUBACK = 4


class AckLeg(Leg):
    """A connection whose PUBACKs may get lost."""

    def __init__(self, proxy: LostAcks, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        super().__init__(client, server)
        self._proxy, self._begun = proxy, b""

    async def from_client(self, read: bytes) -> None:
        """Pass on whole packets, but for those that are to be lost."""
        packets, self._begun = packets_of(self._begun + read)
        await self.to_server(
            b"".join(one for one in packets if not self._proxy.losing or one[0] >> 4 != _PUBACK)
        )


class LostAcks(Proxy):
    """In front of a broker; loses all acknowledgements while :attr:`losing`."""

    losing = False

    def leg(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> Leg:
        """A connection."""
        return AckLeg(self, client, server)
