"""Many updates of few keys, as of sensors whose clocks have no fractions, and what must stand in the end."""

from __future__ import annotations

import json
import threading
from collections import Counter

import mqtt5

from tests.support.databases import Databases
from tests.support.fault_proof import Verdict
from tests.support.plan import TELEMETRY
from tests.support.wire import QOS1, Wire

EVERY_SECONDS = 0.004
EACH = 100
"""Updates of a key; then the next one begins, a second later by the devices' clocks."""
SERIALS = [f"KEYS-{number:02}" for number in range(20)]
_COUNTED = """
SELECT (extract(epoch FROM time) * 1000)::bigint, (data->>'n')::int, count(*) FROM telemetry GROUP BY 1, 2
"""


class Updates:
    """A publisher in a thread: each device updates the same key at once, QoS 1, until it is ended."""

    def __init__(self, port: int, start_ms: int) -> None:
        self._port, self._start_ms = port, start_ms
        self._count = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="updates")

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def finish(self) -> None:
        """Publish no more; the broker has acknowledged all."""
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with Wire(self._port) as wire:
            while not self._over.wait(EVERY_SECONDS):
                self._update(wire)

    def _update(self, wire: Wire) -> None:
        reading = {"ts": self._ms(self._count // EACH), "metrics": {"n": self._count}}
        for number, serial in enumerate(SERIALS, 1):
            topic = TELEMETRY.format(tenant="acme", device=serial)
            wire.send(mqtt5.PublishPacket(topic, json.dumps(reading).encode(), qos=QOS1, packet_id=number))
        for _ in SERIALS:
            assert isinstance(wire.receive(), mqtt5.PubAckPacket)
        self._count += 1

    def _ms(self, key: int) -> int:
        return self._start_ms + 1000 * key

    # what must be there ---------------------------------------------------------------------

    @property
    def messages(self) -> int:
        """How many were published."""
        return self._count * len(SERIALS)

    def arrived(self, databases: Databases) -> bool:
        """The last updates are stored; all others came before them."""
        last = "SELECT count(*) FROM telemetry WHERE (data->>'n')::int = $1"
        return bool(databases.timeseries(last, self._count - 1)[0][0] == len(SERIALS))

    def verdict(self, databases: Databases) -> Verdict:
        """A message is a key here; lost: another update than the newest stands, or none."""
        found = Counter({(at, n): count for at, n, count in databases.timeseries(_COUNTED)})
        newest = range(-(-self._count // EACH))
        right = sum(found[self._ms(key), min((key + 1) * EACH, self._count) - 1] for key in newest)
        keys = len(newest) * len(SERIALS)
        return Verdict(keys, found.total() - (keys - right), lost=keys - right, strange=found.total() - keys)
