"""How a broker delivers to a plain consumer: window, packet ids, what comes again and how, shared subscriptions."""

from __future__ import annotations

import itertools

from tests.support import reference
from tests.support.broker_cell import BrokerCell, still
from tests.support.reference import Reference, ReferenceDelivery
from tests.support.waiting import eventually

MANY = 300
SOME = 20
LATE = 7.0
"""Seconds within which a broker must have begun to send again."""


class Habits:
    """Of the broker of a cell, whose daemon is not started."""

    def __init__(self, cell: BrokerCell) -> None:
        self._cell = cell
        self._consumer = cell.reference

    def observe(self) -> dict[str, str]:
        """Heading to what was seen."""
        consumer = self._consumer
        consumer.connect()
        self._published(MANY + SOME)  # so that ids that begin anew are others, with a pool of 100 too
        ids = [delivery.packet_id for delivery in consumer.deliveries]
        still(lambda: len(consumer.deliveries))
        consumer.holding = True
        self._cell.publish(MANY)
        window = still(lambda: consumer.held, quiet=2.0)
        before = consumer.deliveries[-window:]
        consumer.drop()
        consumer.holding = False  # rumqttd answers no SUBSCRIBE while its window is full
        consumer.connect()
        still(lambda: len(consumer.deliveries), quiet=LATE)
        again = consumer.on_connection(-1)
        return {
            "window": f"{window}" if window < MANY else f"{MANY} or more",
            "packet ids": _cycle(ids),
            **_redelivery(before, again),
            "redelivers": _share(before, again),
            "lost": f"{consumer.lost(self._cell.published)}",
            "session present": "yes" if consumer.resumed else "no",
            "$share": self._shares(),
        }

    def _published(self, count: int) -> None:
        self._cell.publish(count)
        eventually(lambda: len(self._consumer.deliveries) >= count, timeout=20, what="the consumer has all")

    def _shares(self) -> str:
        """Two consumers of one group: whether they get all, and each message once."""
        cell, topic = self._cell, f"{self._cell.place}/shared"
        port = cell.broker.port_of(cell.level)
        both = [
            Reference(port, f"$share/group/{topic}", version=cell.level, login=cell.broker.login)
            for _ in range(2)
        ]
        try:
            for one in both:
                one.connect()
        except AssertionError:
            return "refused"
        messages = [(topic, b"%d" % number) for number in range(SOME)]
        reference.publish(port, messages, version=cell.level, login=cell.broker.login)
        still(lambda: sum(len(one.deliveries) for one in both))
        came = [len(one.deliveries) for one in both]
        for one in both:
            one.close()
        if sum(came) == SOME:
            return "yes"
        return "no: an ordinary filter" if not sum(came) else f"{sum(came)} of {SOME}"


def _cycle(ids: list[int]) -> str:
    """In which order ids were handed out."""
    steps = {after - before for before, after in itertools.pairwise(ids)}
    if steps == {1}:
        return f"in turn, from {ids[0]}"
    if max(ids) < MANY:
        return f"again and again, {min(ids)} to {max(ids)}"
    return f"from {ids[0]}, not in turn"


def _share(before: list[ReferenceDelivery], again: list[ReferenceDelivery]) -> str:
    """How much of what was not acknowledged came again, and whether in its order."""
    wanted = [delivery.payload for delivery in before]
    found = [delivery.payload for delivery in again if delivery.payload in set(wanted)]
    if len(set(found)) < len(wanted):
        return f"{len(set(found))} of {len(wanted)}" if found else "nothing"
    return "all" if found == wanted else "all, in another order"


def _redelivery(before: list[ReferenceDelivery], again: list[ReferenceDelivery]) -> dict[str, str]:
    """Of what was not acknowledged when the connection broke."""
    ids = {delivery.payload: delivery.packet_id for delivery in before}
    repeated = [delivery for delivery in again if delivery.payload in ids]
    if not repeated:
        return {"DUP": "-", "ids again": "-"}
    dup = {delivery.dup for delivery in repeated}
    same = {delivery.packet_id == ids[delivery.payload] for delivery in repeated}
    first = f", from {repeated[0].packet_id}" if same != {True} else ""
    told = {True: "the same", False: f"others{first}"}
    return {
        "DUP": "some" if len(dup) > 1 else ("yes" if True in dup else "no"),
        "ids again": f"some{first}" if len(same) > 1 else told[same.pop()],
    }
