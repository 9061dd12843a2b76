"""One device, or one log-in, against all others: what they notice of it, and what the daemon takes meanwhile.

A :class:`Scene` has a real broker, a database, a daemon, and an innocent device that publishes all the time, each a
process of its own. :meth:`Scene.measure` runs an attack and tells how long the innocent device's readings took
meanwhile, and the daemon's peak of memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mqtt5 import PublishPacket

from gateway.settings import BufferSettings
from gateway.tools.bench.percentiles import percentile
from gateway.tools.bench.usage import peak_bytes
from tests.support.daemon import Daemon
from tests.support.databases import Databases, Workshop
from tests.support.innocent import Innocent, Sample
from tests.support.load import Publisher, packet_id
from tests.support.plan import TELEMETRY
from tests.support.provisioned import provision
from tests.support.servers import Mosquitto
from tests.support.waiting import eventually
from tests.support.wire import QOS1

ATTACKED = "telemetry"
"""The stream of those who attack."""
INNOCENT = "innocent"
INNOCENT_TOPIC = "quiet/{tenant}/{device}"
TENANT, ATTACKERS = "acme", [f"LOUD-{number}" for number in range(4)]
MIB = 2**20
MEMORY_ALLOWED = BufferSettings().max_bytes + 100 * MIB
DELAY_ALLOWED = 1.0
"""Seconds, p99."""
_PUBLISH_SECONDS = 300.0
_LEAST_SECONDS = 1.0
"""So long is looked at the innocent device at least: a hundred readings."""


@dataclasses.dataclass(frozen=True)
class AttackCost:
    """What an attack cost.

    Attributes:
        p99: seconds from publishing to the row, of the innocent device's readings of the time of the attack.
        readings: so many they were.
        memory: the daemon's peak, bytes.
        seconds: from the first message of the attack until all of it was settled.
    """

    attack: str
    engine: str
    p99: float
    worst: float
    readings: int
    memory: int
    seconds: float
    messages: int
    outcomes: Mapping[str, int]

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items() if count)
        return (
            f"{self.attack} ({self.engine}): p99 {self.p99:.3f} s, worst {self.worst:.3f} s of {self.readings}; "
            f"{self.memory / MIB:.0f} MiB; {self.messages} messages in {self.seconds:.1f} s ({ends})"
        )


class Scene:
    """See the module. The daemon has the usual settings, as they are shipped, and a stream for each side.

    Attributes:
        devices: ids of the attackers' devices by serial number.
    """

    def __init__(self, broker: Mosquitto, databases: Databases) -> None:
        self.broker, self.databases = broker, databases
        streams = [
            {"name": ATTACKED, "topic": TELEMETRY},
            {"name": INNOCENT, "topic": INNOCENT_TOPIC},
        ]
        self.daemon = Daemon(broker.port, databases, {"streams": streams})
        self.devices = provision(databases, [*ATTACKERS, "QUIET-0"], tenant=TENANT)
        self.innocent = Innocent(
            broker.port,
            databases,
            device=self.devices["QUIET-0"],
            topic=INNOCENT_TOPIC.format(tenant=TENANT, device="QUIET-0"),
        )

    def begin(self) -> None:
        """Start the daemon, then the innocent device, where they do not run yet."""
        for process in (self.daemon, self.innocent):
            if not process.running:
                process.start()

    def close(self) -> None:
        """End all that was started here."""
        for process in (self.innocent, self.daemon):
            process.close()

    def topic(self, device: str = ATTACKERS[0]) -> str:
        """Where this device publishes."""
        return TELEMETRY.format(tenant=TENANT, device=device)

    def publish(
        self, messages: Iterable[tuple[str, bytes]], properties: Sequence[tuple[str, str]] = ()
    ) -> int:
        """As fast as the broker takes them, at QoS 1; how many there were. Encoded before the first is sent."""
        return self.send(
            [
                PublishPacket(
                    topic, payload, qos=QOS1, packet_id=packet_id(position), user_properties=list(properties)
                ).write()
                for position, (topic, payload) in enumerate(messages)
            ]
        )

    def send(self, packets: Sequence[bytes]) -> int:
        """The same with packets as they are; see :func:`tests.support.load.packet_id` for their ids."""
        Publisher(self.broker.port, packets).run(time.monotonic() + _PUBLISH_SECONDS)
        return len(packets)

    def measure(self, name: str, attack: Callable[[], int], *, timeout: float = 300) -> AttackCost:
        """Attack, and see what it costs until all of it is settled.

        Args:
            attack: called once; how many messages of the stream ``ATTACKED`` it published.

        Raises:
            AssertionError: not all is settled in time, a reading of the innocent device is missing, or the daemon
                was started anew.
        """
        pid, before = self.daemon.pid, self._books()
        (Path("/proc") / str(pid) / "clear_refs").write_text("5", "ascii")  # the peak counts from here on
        began = time.monotonic()
        count = attack()
        eventually(
            lambda: self._settled(before["received"] + count),
            timeout=timeout,
            every=0.1,
            what=f"{name} settled",
        )
        ended = max(time.monotonic(), began + _LEAST_SECONDS)
        samples = self._samples(began, ended, timeout)
        assert self.daemon.running, self.daemon.tail()
        assert self.daemon.pid == pid
        delays = [sample.delay for sample in samples]
        after = self._books()
        return AttackCost(
            name,
            self.databases.engine,
            percentile(delays, 0.99),
            max(delays),
            len(delays),
            peak_bytes(pid),
            ended - began,
            count,
            {end: after[end] - before[end] for end in ("stored", "duplicate", "dead_lettered", "ignored")},
        )

    def _books(self) -> dict[str, int]:
        books: dict[str, int] = self.daemon.status()["streams"][ATTACKED]
        return books

    def _settled(self, received: int) -> bool:
        assert self.daemon.running, self.daemon.tail()
        books = self._books()
        return books["received"] >= received and not books["in_flight"]

    def _samples(self, began: float, ended: float, timeout: float) -> list[Sample]:
        """The innocent device's readings of this time, none of which is missing."""

        def complete() -> list[Sample] | None:
            samples = self.innocent.samples()
            later = next((sample.seq for sample in samples if sample.published > ended), None)
            if later is None or [sample.seq for sample in samples[: later + 1]] != list(range(later + 1)):
                return None
            return [sample for sample in samples if began <= sample.published <= ended]

        found = eventually(complete, timeout=timeout, every=0.1, what="all readings of the innocent device")
        assert found is not None
        return found


class Stage:
    """One scene after another: a new one is begun only where the last one failed."""

    def __init__(self, workshop: Workshop, broker: Mosquitto) -> None:
        self._workshop, self._broker = workshop, broker
        self._scene: Scene | None = None

    @contextlib.contextmanager
    def scene(self) -> Iterator[Scene]:
        """The scene, which has begun; it is ended where the block fails."""
        if self._scene is None:
            self._scene = Scene(self._broker, self._workshop.migrated())
        try:
            self._scene.begin()
            yield self._scene
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """End the scene."""
        self._end()

    def _end(self) -> None:
        if self._scene is not None:
            self._scene.close()
            self._workshop.drop(self._scene.databases)
        self._scene = None
