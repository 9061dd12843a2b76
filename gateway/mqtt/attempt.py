"""One connection to the broker to see whether it would work: takes no other client's messages, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.errors import GatewayError
from gateway.messages import Message
from gateway.mqtt.connection import Connection, Receiver, Subscription, subscribe_to_all

_OF_CHECKS = "-check"


class DiscardingReceiver:
    """Takes messages and keeps none; see :class:`gateway.mqtt.connection.Receiver`."""

    def connected(self, session_present: bool) -> None:
        """Accepted."""

    def take(self, messages: Sequence[Message], packet_ids: Sequence[int]) -> None:
        """Not acknowledged: the session ends with the connection."""

    def pinged(self) -> None:
        """Nothing is acknowledged."""

    def answered(self) -> None:
        """Likewise."""

    def idle(self) -> None:
        """Likewise."""


def client_id(name: str) -> str:
    """Of the attempt: with the daemon's own it would end the daemon's connection."""
    return f"{name}{_OF_CHECKS}"


async def attempt(
    makers: Sequence[Callable[[Receiver], Connection]], subscriptions: Sequence[Subscription]
) -> tuple[str, list[str]]:
    """Connect by the first of these that is accepted, and subscribe; its MQTT version, and what the broker does not do.

    Raises:
        GatewayError: none was accepted; why the first was not.
    """
    failures: list[GatewayError] = []
    for make in makers:
        connection = make(DiscardingReceiver())
        try:
            await connection.open()
            return connection.protocol, await _problems(connection, subscriptions)
        except GatewayError as error:
            failures.append(error)
        finally:
            await connection.close()
    raise failures[0]


async def _problems(connection: Connection, subscriptions: Sequence[Subscription]) -> list[str]:
    refusals = await subscribe_to_all(connection, subscriptions)
    refused = [f"refuses {one.subscription.filter}: {one.reason}" for one in refusals]
    return [*connection.shortcomings, *refused]
