"""The whole path but for the broker, on real databases: how messages end, when they go, what is held."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import asyncpg
import mqtt5
import pytest
import structlog

from gateway import clock, decoders
from gateway.daemon import replay
from gateway.daemon.replay import ReplayResult
from gateway.decoders import Decode, Limits
from gateway.messages import Reading
from gateway.outcomes import Outcome
from gateway.writer.dead_letters import Selection
from tests.support.bad_input import CASES, KEPT
from tests.support.batching import NOW_US, published, settings_for
from tests.support.databases import Databases, Workshop
from tests.support.flow import Flow
from tests.support.provisioned import provision
from tests.support.servers import Postgres
from tests.support.sql import execute, without_trigger
from tests.support.waiting import eventually_async
from tests.support.written import altered

STORED, DUPLICATE, DEAD, IGNORED = Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED, Outcome.IGNORED
NOW_MS = NOW_US // 1000
FOR_EVER = 3600.0


class Tenant:
    """A tenant of a test's own, with its devices, and what the tables hold of it."""

    def __init__(self, databases: Databases, *serials: str) -> None:
        self.databases, self.name = databases, f"t-{uuid.uuid4().hex[:12]}"
        self.devices = provision(databases, serials or ["A"], tenant=self.name)

    def message(self, payload: Any, device: str = "A", **rest: Any) -> mqtt5.PublishPacket:
        """A message of this device."""
        return published(f"t/{self.name}/{device}", payload, **rest)

    def rows(self, device: str = "A") -> list[Any]:
        """Rows of a device, in time."""
        statement = "SELECT time, data, metadata FROM telemetry WHERE device_id = $1 ORDER BY time"
        return self.databases.timeseries(statement, self.devices[device])

    def data(self, device: str = "A") -> list[Any]:
        """What the rows of a device hold, in time."""
        return [json.loads(row["data"]) for row in self.rows(device)]

    def transactions(self, device: str = "A") -> list[int]:
        """How many rows of a device each transaction brought, least first."""
        statement = "SELECT count(*) FROM telemetry WHERE device_id = $1 GROUP BY xmin::text ORDER BY 1"
        return [row["count"] for row in self.databases.timeseries(statement, self.devices[device])]

    def letters(self) -> list[tuple[str, bytes]]:
        """Reason and payload of the dead letters, as they came."""
        found = self.databases.timeseries(
            "SELECT reason, payload FROM dead_letters WHERE topic LIKE $1 ORDER BY received_at",
            f"%{self.name}%",
        )
        return [(row["reason"], row["payload"]) for row in found]


@pytest.fixture(scope="module")
def plain(postgres: Postgres, workshops: Callable[[Postgres], Workshop]) -> Iterator[Databases]:
    """Databases on plain PostgreSQL that the tests of this module share."""
    workshop = workshops(postgres)
    made = workshop.migrated()
    yield made
    workshop.drop(made)


# ---------------------------------------------------------------- on both engines


async def test_readings_arrive(shared: Databases) -> None:
    """Of a device that is known: stored under its own time or its receive time, settled, accounted for."""
    tenant = Tenant(shared)
    async with Flow(settings_for(shared)) as flow:
        flow.take(
            tenant.message({"ts": NOW_MS, "metrics": {"n": 1}, "metadata": {"site": "A"}}),
            tenant.message({"n": 2}),
            tenant.message([{"n": 3, "ts": NOW_MS + 1}, {"n": 4, "ts": NOW_MS + 2}]),
            received_us=NOW_US + 1_000_000,
        )
        assert await flow.settle() == {STORED: 3}
    assert [
        (clock.from_datetime(row["time"]) - NOW_US, row["data"], row["metadata"]) for row in tenant.rows()
    ] == [
        (0, '{"n": 1}', '{"site": "A"}'),
        (1000, '{"n": 3}', None),
        (2000, '{"n": 4}', None),
        (1_000_000, '{"n": 2}', None),
    ]


async def test_bad_input_has_its_stated_end(shared: Databases) -> None:
    """Everything that devices send and nobody asked for, between good readings of the same device."""
    tenant = Tenant(shared, *(f"S-{n}" for n in range(len(CASES))), "OFF")
    shared.metadata("UPDATE devices SET status = 'disabled' WHERE id = $1", tenant.devices["OFF"])
    good = {"ts": NOW_MS - 30_000, "good": 1}
    async with Flow(settings_for(shared, {"topic": "tenants/{tenant}/devices/{device}/telemetry"})) as flow:
        for n, case in enumerate(CASES):
            own = f"tenants/{tenant.name}/devices/S-{n}/telemetry"
            topic = (case.topic or own).replace("/acme/", f"/{tenant.name}/")
            good_ones = (published(own, {**good, "ts": good["ts"] + at}) for at in (0, 1))
            flow.take(next(good_ones), published(topic, case.payload), next(good_ones))
        ended = await flow.settle()
    assert ended[DEAD] == sum(case.reason is not None for case in CASES)
    stated = {case.name: case.reason or case.rows for case in CASES}
    assert {case.name: end_of(tenant, n) for n, case in enumerate(CASES)} == stated


def end_of(tenant: Tenant, n: int) -> object:
    """The reason of a case's dead letter, or its number of rows beside the two good ones."""
    case, device = CASES[n], f"S-{n}"
    rows = len(tenant.rows(device)) - 2
    topic = (case.topic or f"tenants/{tenant.name}/devices/{device}/telemetry").replace(
        "/acme/", f"/{tenant.name}/"
    )
    letters = tenant.databases.timeseries("SELECT reason, payload FROM dead_letters WHERE topic = $1", topic)
    if not letters:
        return rows
    (letter,) = letters
    return letter["reason"] if letter["payload"] == case.payload[:KEPT] and not rows else (letter, rows)


def of_all_kinds(tenant: Tenant, dice: random.Random, n: int) -> mqtt5.PublishPacket:
    """A message that could be anything; ``n`` is in it."""
    timed = {"ts": NOW_MS - n, "metrics": {"n": n}}
    known, qos = dice.choice("ABC"), dice.choice((0, 1, 1, 1))
    makers: list[Callable[[], mqtt5.PublishPacket]] = [
        *[lambda: tenant.message(timed, known, qos=qos)] * 10,
        *[lambda: tenant.message({"n": n}, known, qos=qos)] * 5,
        lambda: tenant.message([{**timed}, {"n": n}], known, qos=qos),
        lambda: tenant.message(timed, f"new-{n % 7}", qos=qos),
        lambda: tenant.message({"poison": n}, known, qos=qos),
        lambda: tenant.message(b"{", known, qos=qos),
        lambda: tenant.message({"ts": NOW_MS, "same": 1}, known, qos=qos),
        lambda: tenant.message({"n": n}, known, retain=True),
        lambda: published(f"stray/{tenant.name}/{n}", timed),
        lambda: published(f"quiet/{tenant.name}", timed),
    ]
    return dice.choice(makers)()


async def test_the_books_balance_at_every_step(shared: Databases) -> None:
    """A thousand messages of all kinds in deliveries of all sizes, the table locked now and then: one end each."""
    dice, tenant = random.Random(2027), Tenant(shared, "A", "B", "C")
    streams: Sequence[dict[str, Any]] = [{}, {"name": "quiet", "topic": "quiet/{tenant}", "kind": "ignore"}]
    async with Flow(settings_for(shared, *streams, batch={"max_rows": 50, "linger": 0.002})) as flow:
        for step in range(40):
            delivery = [of_all_kinds(tenant, dice, step * 25 + n) for n in range(dice.randrange(1, 50))]
            flow.take(*delivery, idle=dice.random() < 0.5)
            await asyncio.sleep(0)
            if step % 10 == 5:
                lock = "BEGIN; LOCK TABLE telemetry IN EXCLUSIVE MODE; SELECT pg_sleep(0.05); COMMIT"
                await asyncio.to_thread(execute, shared.timeseries_dsn, lock)
        ended = await flow.settle()
        books = {name: tally.received for name, tally in flow.path.routes.tallies.items()}
    assert sum(ended.values()) == flow.taken == sum(books.values())
    assert ended[DEAD] == len(tenant.letters())
    assert {STORED, DUPLICATE, DEAD, IGNORED} == set(ended)


# ---------------------------------------------------------------- redeliveries


async def test_a_redelivery_of_what_the_ledger_knows_is_a_duplicate(shared: Databases) -> None:
    """After a crash before the acks left: DUP, in the session kept, same packet id and bytes. Nothing else drops."""
    tenant, client = Tenant(shared), str(uuid.uuid4())
    first = [
        tenant.message({"n": 1}, packet_id=1),
        tenant.message(b"{", packet_id=2),
        tenant.message({"ts": NOW_MS, "n": 3}, packet_id=3),
    ]
    async with Flow(settings_for(shared, client_id=client)) as flow:
        flow.take(*first)
        assert await flow.settle() == {STORED: 2, DEAD: 1}
    again = [
        tenant.message({"n": 1}, packet_id=1, duplicate=True),  # stored: the ledger knows
        tenant.message(b"{", packet_id=2, duplicate=True),  # a dead letter: likewise
        tenant.message({"ts": NOW_MS, "n": 3}, packet_id=3, duplicate=True),  # meets itself in the table
        tenant.message({"n": 1}, packet_id=4, duplicate=True),  # another packet id: never stored
        tenant.message({"n": 1}, packet_id=5),  # no DUP: a new message
    ]
    async with Flow(settings_for(shared, client_id=client)) as flow:
        flow.take(*again, resumed=True)
        assert await flow.settle() == {DUPLICATE: 3, STORED: 2}
    assert sorted(data["n"] for data in tenant.data()) == [1, 1, 1, 3]
    assert len(tenant.letters()) == 1


@pytest.mark.parametrize(
    ("payload", "duplicate", "resumed"),
    [({"n": 5}, True, True), ({"n": 1}, False, True), ({"n": 1}, True, False)],
    ids=["other bytes", "no DUP", "another session"],
)
async def test_what_only_looks_like_a_redelivery_is_stored(
    plain: Databases, payload: dict[str, int], duplicate: bool, resumed: bool
) -> None:
    """Under the packet id of what an earlier process stored."""
    tenant, client = Tenant(plain), str(uuid.uuid4())
    async with Flow(settings_for(plain, client_id=client)) as flow:
        flow.take(tenant.message({"n": 1}, packet_id=1))
        assert await flow.settle() == {STORED: 1}
    async with Flow(settings_for(plain, client_id=client)) as flow:
        flow.take(tenant.message(payload, packet_id=1, duplicate=duplicate), resumed=resumed)
        assert await flow.settle() == {STORED: 1}


async def test_what_an_early_life_stored_is_known_to_the_last(plain: Databases) -> None:
    """Killed again and again: what is delivered again each time is known each time."""
    tenant, client = Tenant(plain), str(uuid.uuid4())
    async with Flow(settings_for(plain, client_id=client)) as flow:
        flow.take(*(tenant.message({"n": n}, packet_id=n) for n in range(1, 4)))
        assert await flow.settle() == {STORED: 3}
    again = [tenant.message({"n": n}, packet_id=n, duplicate=True) for n in range(1, 12)]
    for outcomes in ({DUPLICATE: 3, STORED: 8}, {DUPLICATE: 11}, {DUPLICATE: 11}):
        async with Flow(settings_for(plain, client_id=client)) as flow:
            flow.take(*again, resumed=True)
            assert await flow.settle() == outcomes
    assert sorted(data["n"] for data in tenant.data()) == list(range(1, 12))


async def test_redeliveries_that_waited_go_in_batches(plain: Databases) -> None:
    """A whole session may have waited for the ledger: it is no one batch, but each of its deliveries is in one."""
    tenant = Tenant(plain)
    again = [tenant.message({"n": n}, packet_id=n + 1, duplicate=True) for n in range(35)]
    async with Flow(settings_for(plain, batch={"max_rows": 10})) as flow:
        for at in range(0, 35, 5):
            flow.take(*again[at : at + 5], resumed=True)
        assert await flow.settle() == {STORED: 35}
    assert tenant.transactions() == [5, 10, 10, 10]


async def test_dup_alone_drops_nothing(plain: Databases) -> None:
    """In a session that was not kept, DUP speaks of another session: stored."""
    tenant, client = Tenant(plain), str(uuid.uuid4())
    for resumed in (True, False):
        async with Flow(settings_for(plain, client_id=client)) as flow:
            flow.take(tenant.message({"n": 1}, packet_id=1, duplicate=not resumed), resumed=resumed)
            assert await flow.settle() == {STORED: 1}
    assert tenant.data() == [{"n": 1}, {"n": 1}]


async def test_a_redelivery_waits_for_what_came_before_its_connection(plain: Databases) -> None:
    """The connection breaks while a batch is on its way: its redeliveries are judged when that batch is settled."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain)) as flow:
        message = [tenant.message({"n": n}, packet_id=n + 1) for n in range(4)]
        again = [tenant.message({"n": n}, packet_id=n + 1, duplicate=True) for n in range(4)]
        flow.take(message[0])
        await flow.settle()
        async with Locked(plain) as lock:
            flow.take(*message[1:3])
            await lock.somebody_waits()
            flow.take(*again, resumed=True, since=3)
            flow.take(tenant.message({"ts": NOW_MS, "n": "other"}), resumed=True, since=3)
            assert flow.held().total() == 7
            for _ in range(10):
                await asyncio.sleep(0)
            async with flow.base.timeseries.connection() as connection:
                # The one connection of this pool: whoever asked the ledger before us has been answered.
                await connection.fetchval("SELECT 1")
            # The fourth came for the first time, whatever its DUP flag says: this process began the session.
            assert len(flow.pipeline.in_flight.unrecognised) == 3
        assert await flow.settle() == {STORED: 5, DUPLICATE: 3}
    assert sorted(data["n"] for data in tenant.data() if data["n"] != "other") == [0, 1, 2, 3]


async def test_redeliveries_of_two_connections_do_not_wait_for_each_other(plain: Databases) -> None:
    """One of the first is held by a look-up until some of the second wait for it: the first is judged first."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain)) as flow:
        flow.take(tenant.message({"n": 0}, packet_id=1), resumed=True)
        await flow.settle()
        flow.take(tenant.message({"n": 1}, "GHOST", packet_id=2, duplicate=True), resumed=True, since=1)
        flow.take(tenant.message({"n": 2}, packet_id=3, duplicate=True), resumed=True, since=2)
        assert (len(flow.pipeline.in_flight.unresolved), len(flow.pipeline.in_flight.unrecognised)) == (1, 1)
        assert await flow.settle() == {STORED: 2, DEAD: 1}


class Locked:
    """Nobody can write to telemetry meanwhile."""

    def __init__(self, databases: Databases) -> None:
        self._dsn = databases.timeseries_dsn

    async def __aenter__(self) -> Self:
        self._holder = await asyncpg.connect(self._dsn)
        await self._holder.execute("BEGIN; LOCK TABLE telemetry IN EXCLUSIVE MODE")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._holder.execute("COMMIT")
        await self._holder.close(timeout=5)

    async def somebody_waits(self, count: int = 1) -> None:
        """Returns when so many connections wait for the lock."""
        await eventually_async(self._wait(count))

    def _wait(self, count: int) -> Callable[[], Any]:
        waiting = (
            "SELECT count(*) >= $1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND application_name = 'gateway-writer' AND datname = current_database()"
        )

        async def wait() -> bool:
            # A transaction sees the sessions that were there at its first look, until it forgets them.
            await self._holder.execute("SELECT pg_stat_clear_snapshot()")
            return bool(await self._holder.fetchval(waiting, count))

        return wait


# ---------------------------------------------------------------- when batches go


async def test_a_single_reading_goes_when_the_socket_is_idle(plain: Databases) -> None:
    """However long the linger: nobody else is coming."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, batch={"linger": FOR_EVER})) as flow:
        flow.take(tenant.message({"n": 1}), idle=False)
        await eventually_async(lambda: flow.held().total() == 1)
        flow.pipeline.idle()
        await eventually_async(lambda: flow.hand.settled == [0])


async def test_readings_go_after_the_linger(plain: Databases) -> None:
    """A socket that never idles does not keep them."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, batch={"linger": 0.05})) as flow:
        flow.take(tenant.message({"n": 1}), idle=False)
        await eventually_async(lambda: flow.hand.settled == [0])


async def test_full_batches_go_at_once(plain: Databases) -> None:
    """Neither idle nor linger is waited for; what is not full yet is."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, batch={"linger": FOR_EVER, "max_rows": 10})) as flow:
        flow.take(tenant.message({"n": -1}))
        await flow.settle()
        for start in range(0, 25, 5):
            flow.take(*(tenant.message({"n": start + n}) for n in range(5)), idle=False)
        await eventually_async(lambda: len(flow.hand.settled) == 21)
        assert flow.held().total() == 5
        await flow.settle()


async def test_while_one_batch_is_written_the_next_collects(plain: Databases) -> None:
    """Whatever came meanwhile goes together, in one transaction: the slower the database, the larger the batches."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, writer={"connections": 1})) as flow:
        async with Locked(plain) as lock:
            flow.take(tenant.message({"n": 0}))
            await lock.somebody_waits()
            for n in range(1, 20):
                flow.take(tenant.message({"n": n}))
        await flow.settle()
    assert tenant.transactions() == [1, 19]


async def test_a_trickle_asks_the_database_for_nothing_but_its_rows(plain: Databases) -> None:
    """Writers without work sleep: a reading costs one transaction, not a look around by each idle connection."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, batch={"linger": 0.001})) as flow:
        flow.take(tenant.message({"ts": NOW_MS, "n": 0}))
        await flow.settle()
        probes = Probes(flow)
        for n in range(1, 20):
            flow.take(tenant.message({"ts": NOW_MS + n, "n": n}))
            await eventually_async(lambda n=n: len(flow.hand.settled) == n + 1)  # type: ignore[misc]
        assert probes.count == 0


class Probes:
    """Counts the probes of a flow's writers from now on."""

    def __init__(self, flow: Flow) -> None:
        self.count = 0
        for writer in flow.path.writers:
            probe = writer.probe
            writer.probe = self._counted(probe)  # type: ignore[method-assign]

    def _counted(self, probe: Callable[[], Any]) -> Callable[[], Any]:
        async def counted() -> None:
            self.count += 1
            await probe()

        return counted


# ---------------------------------------------------------------- back-pressure


async def test_reading_pauses_when_memory_is_full(plain: Databases) -> None:
    """Bounded in bytes, nothing dropped: paused at the bound, resumed when there is room, all stored."""
    tenant, bound = Tenant(plain), 2 * 2**20
    async with Flow(settings_for(plain, buffer={"max_bytes": bound})) as flow:
        async with Locked(plain):
            for n in itertools.count():
                flow.take(tenant.message({"n": n, "text": "x" * 50_000}))
                if flow.hand.paused:
                    break
                assert flow.held_bytes < bound
            assert bound <= flow.held_bytes < bound + 200_000
            flow.take(tenant.message({"n": -1}))  # what the socket had read by then
            assert flow.hand.turns == ["pause"]
        assert await flow.settle() == {STORED: n + 2}
        assert flow.hand.turns == ["pause", "resume"]
        assert flow.held_bytes == 0


async def test_what_waits_for_the_registry_counts_as_held(plain: Databases) -> None:
    """The metadata database away, a flood of unknown devices: memory is bounded all the same."""
    tenant, bound = Tenant(plain), 2 * 2**20
    async with Flow(settings_for(plain, buffer={"max_bytes": bound})) as flow:
        with altered(
            plain.metadata_dsn, "ALTER TABLE devices RENAME TO away", "ALTER TABLE away RENAME TO devices"
        ):
            for n in itertools.count():
                flow.take(tenant.message({"n": n, "text": "x" * 50_000}, f"S-{n}"))
                if flow.hand.paused:
                    break
            assert bound <= flow.held_bytes < bound + 200_000
        assert await flow.settle() == {DEAD: n + 1}
        assert flow.hand.turns == ["pause", "resume"]


# ---------------------------------------------------------------- devices


async def test_known_devices_flow_while_others_wait(plain: Databases) -> None:
    """The metadata database is in trouble: who is known is stored, who is not waits and is no dead letter."""
    tenant = Tenant(plain, "A", "B")
    async with Flow(settings_for(plain)) as flow:
        flow.take(tenant.message({"n": 1}))
        await flow.settle()
        with altered(
            plain.metadata_dsn, "ALTER TABLE devices RENAME TO away", "ALTER TABLE away RENAME TO devices"
        ):
            flow.take(tenant.message({"n": 1}, "B"), tenant.message({"n": 2}), tenant.message({"n": 1}, "C"))
            await eventually_async(lambda: flow.hand.settled == [0, 2])
            await eventually_async(lambda: "gateway db upgrade" in flow.health.component("metadata").detail)
            assert flow.ended() == {STORED: 2}
        assert await flow.settle() == {STORED: 3, DEAD: 1}
    assert tenant.data("B") == [{"n": 1}]
    assert tenant.letters() == [("unknown_device", b'{"n": 1}')]


@pytest.mark.parametrize(
    ("policy", "ended"),
    [
        ({"unknown_device": "dead_letter"}, {DEAD: 1}),
        ({"unknown_device": "ignore"}, {IGNORED: 1}),
        ({"unknown_device": "provision", "provision_type": "sensor"}, {STORED: 1}),
    ],
)
async def test_the_stream_says_what_becomes_of_unknown_devices(
    plain: Databases, policy: dict[str, str], ended: dict[Outcome, int]
) -> None:
    """Dead letters, ignored, or entered into the registry; an unknown tenant is a dead letter in any case."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, policy)) as flow:
        flow.take(tenant.message({"n": 1}, "new"))
        assert await flow.settle() == ended
        flow.take(published(f"t/no-{tenant.name}/new", {"n": 1}))
        assert (await flow.settle())[DEAD] == ended.get(DEAD, 0) + 1


async def test_devices_beyond_the_limit_of_the_hour_are_dead_letters(plain: Databases) -> None:
    """Two of three are provisioned; the message of the third is stored when it is replayed in another hour."""
    tenant = Tenant(plain)
    policy = {"unknown_device": "provision", "provision_type": "sensor"}
    options = settings_for(plain, policy, registry={"provisioned_per_hour": 2})
    async with Flow(options) as flow:
        flow.take(*(tenant.message({"n": n}, f"new-{n}") for n in range(3)))
        assert await flow.settle() == {STORED: 2, DEAD: 1}
    assert tenant.letters() == [("provisioning_limit", b'{"n": 2}')]
    plain.metadata("UPDATE provisioned_devices SET hour = hour - interval '1 hour'")
    chosen, result = Selection(reason="provisioning_limit"), ReplayResult()
    await replay.run(options, chosen, result, limit=10, progress=lambda *_: None)
    assert (result.replayed, result.stored) == (1, 1)


async def test_an_unknown_device_is_told_even_when_it_is_hardly_remembered(plain: Databases) -> None:
    """The shortest ``negative_ttl``: each message is looked up, and each comes to its end."""
    with pytest.raises(ValueError, match="negative_ttl"):
        settings_for(plain, registry={"negative_ttl": 0})  # would be forgotten before it could be told
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, registry={"negative_ttl": 1})) as flow:
        flow.take(tenant.message({"n": 1}, "nobody"))
        assert await flow.settle(timeout=5) == {DEAD: 1}


async def test_a_device_disabled_while_it_sends(plain: Databases) -> None:
    """Within a second its messages are dead letters; enabled, they are stored again."""
    tenant = Tenant(plain)
    async with Flow(settings_for(plain)) as flow:
        await eventually_async(lambda: flow.health.component("metadata").state == "ready")
        flow.take(tenant.message({"n": 1}))
        await flow.settle()
        entry = flow.base.registry.entry(tenant.name, "A")
        for status, ended in (("disabled", {STORED: 1, DEAD: 1}), ("active", {STORED: 2, DEAD: 1})):
            before = entry.device
            plain.metadata("UPDATE devices SET status = $1 WHERE id = $2", status, tenant.devices["A"])
            await eventually_async(
                lambda: entry.device is None and entry.refusal is None, timeout=1, what=str(before)
            )
            flow.take(tenant.message({"n": 2}))
            assert await flow.settle() == ended
    assert tenant.letters() == [("device_disabled", b'{"n": 2}')]


BY_PAYLOAD = {"topic": "all/{tenant}"}


async def test_the_payload_names_the_device(plain: Databases) -> None:
    """Where the topic does not: each reading goes to the device it names; one unknown device refuses the message."""
    tenant = Tenant(plain, "A", "B")
    topic = f"all/{tenant.name}"
    both = [{"serial_number": "A", "metrics": {"n": 1}}, {"serial_number": "B", "metrics": {"n": 2}}]
    async with Flow(settings_for(plain, BY_PAYLOAD)) as flow:
        flow.take(
            published(topic, both),
            published(topic, [*both, {"serial_number": "ghost", "metrics": {"n": 3}}]),
            published(topic, {"metrics": {"n": 4}}),
            published(topic, [both[0], {"n": 5}]),
        )
        assert await flow.settle() == {STORED: 1, DEAD: 3}
    assert (tenant.data("A"), tenant.data("B")) == ([{"n": 1}], [{"n": 2}])
    assert [reason for reason, _ in tenant.letters()] == ["unknown_device"] * 3


async def test_a_payload_that_speaks_for_another_device(plain: Databases) -> None:
    """The topic's device counts, for access is granted by topic; a payload that claims another is refused."""
    tenant = Tenant(plain, "A", "B")
    async with Flow(settings_for(plain)) as flow:
        flow.take(
            tenant.message({"serial_number": "B", "metrics": {"n": 1}}),
            tenant.message({"serial_number": "A", "metrics": {"n": 2}}),
            tenant.message([{"n": 3}, {"serial_number": "B", "metrics": {"n": 4}}]),
        )
        assert await flow.settle() == {STORED: 1, DEAD: 2}
    assert (tenant.data("A"), tenant.data("B")) == ([{"n": 2}], [])
    assert [reason for reason, _ in tenant.letters()] == ["device_mismatch"] * 2


async def test_ten_thousand_readings_of_unknown_devices_wait_together(plain: Databases) -> None:
    """One message, thousands of devices: looked up at once, stored at once."""
    tenant = Tenant(plain, *(f"S-{n}" for n in range(3000)))
    readings = [{"serial_number": f"S-{n}", "metrics": {"n": n}} for n in range(3000)]
    async with Flow(settings_for(plain, BY_PAYLOAD)) as flow:
        flow.take(published(f"all/{tenant.name}", readings))
        assert await flow.settle() == {STORED: 1}
    assert tenant.data("S-2999") == [{"n": 2999}]


# ---------------------------------------------------------------- time


async def test_receive_times_of_a_device_are_never_equal(plain: Databases) -> None:
    """Messages of one socket read, readings of one message, a clock that jumps back: all in the order of coming."""
    tenant = Tenant(plain, "A", "B")
    async with Flow(settings_for(plain)) as flow:
        flow.take(
            *(tenant.message({"n": n}) for n in range(3)), tenant.message({"n": 0}, "B"), received_us=NOW_US
        )
        flow.take(tenant.message([{"n": 3}, {"n": 4}]), received_us=NOW_US)
        flow.take(tenant.message({"n": 5}), received_us=NOW_US - 3_600_000_000)
        assert await flow.settle() == {STORED: 6}
    assert [
        (clock.from_datetime(row["time"]) - NOW_US, json.loads(row["data"])) for row in tenant.rows()
    ] == [(n, {"n": n}) for n in range(6)]
    assert [clock.from_datetime(row["time"]) for row in tenant.rows("B")] == [NOW_US]


async def test_one_device_on_two_streams(plain: Databases) -> None:
    """Two streams know one device apart; readings of one microsecond exist both, though they say the same."""
    tenant = Tenant(plain)
    streams: Sequence[dict[str, str]] = (
        {},
        {
            "name": "other",
            "topic": "o/{tenant}/{device}",
            "unknown_device": "provision",
            "provision_type": "x",
        },
    )
    async with Flow(settings_for(plain, *streams)) as flow:
        flow.take(tenant.message({"n": 1}), published(f"o/{tenant.name}/A", {"n": 1}), received_us=NOW_US)
        assert await flow.settle() == {STORED: 2}
    assert tenant.data() == [{"n": 1}, {"n": 1}]


# ---------------------------------------------------------------- retained, ignored, stray


@pytest.mark.parametrize(
    ("policy", "timed", "untimed", "broken"),
    [("auto", STORED, IGNORED, DEAD), ("store", STORED, STORED, DEAD), ("ignore", IGNORED, IGNORED, IGNORED)],
)
async def test_retained_replays(
    plain: Databases, policy: str, timed: Outcome, untimed: Outcome, broken: Outcome
) -> None:
    """Brokers replay them at every subscribe: by default only what would meet itself is stored."""
    tenant = Tenant(plain)
    for expected, payload in [(timed, {"ts": NOW_MS, "n": 1}), (untimed, {"n": 2}), (broken, b"{")]:
        async with Flow(settings_for(plain, {"retained": policy})) as flow:
            flow.take(tenant.message(payload, retain=True))
            assert await flow.settle() == {expected: 1}, payload


async def test_ignored_streams_and_stray_topics(plain: Databases) -> None:
    """What configuration ignores is counted and settled; what matches no stream is kept as a dead letter."""
    tenant = Tenant(plain)
    quiet = {"name": "quiet", "topic": "quiet/{tenant}/#", "kind": "ignore"}
    async with Flow(settings_for(plain, quiet, {"name": "all", "topic": "#", "tenant": tenant.name})) as flow:
        flow.take(
            published(f"quiet/{tenant.name}/x", b"\xff"),
            published("$SYS/broker/uptime", f"{tenant.name}".encode()),
            published("anything", {"serial_number": "A", "metrics": {"n": 1}}),
        )
        await flow.settle()
        assert flow.ended("quiet") == {IGNORED: 1}
        assert flow.ended("none") == {DEAD: 1}
        assert flow.ended("all") == {STORED: 1}
    found = plain.timeseries(
        "SELECT reason, topic, stream, tenant FROM dead_letters WHERE payload = $1", tenant.name.encode()
    )
    assert [tuple(row) for row in found] == [("no_stream", "$SYS/broker/uptime", "none", None)]


async def test_messages_with_ids_of_their_own(plain: Databases) -> None:
    """In the payload, or in a user property; published again, under whatever packet id, they are duplicates."""
    tenant = Tenant(plain)
    streams: Sequence[dict[str, str]] = [
        {}, {"name": "property", "topic": "p/{tenant}/{device}", "message_id": "property:id"},
        {"name": "off", "topic": "off/{tenant}/{device}", "message_id": "off"},
    ]  # fmt: skip
    async with Flow(settings_for(plain, *streams)) as flow:
        for _ in range(2):
            flow.take(
                tenant.message({"message_id": "m-1", "n": 1}),
                published(f"p/{tenant.name}/A", {"n": 2}, user_properties=[("x", "y"), ("id", "m-2")]),
                published(f"p/{tenant.name}/A", {"n": 3}),
                published(f"off/{tenant.name}/A", {"message_id": "m-1", "n": 4}),
            )
        assert await flow.settle() == {STORED: 6, DUPLICATE: 2}
    assert sorted(data["n"] for data in tenant.data()) == [1, 2, 3, 3, 4, 4]


# ---------------------------------------------------------------- defects of our own


async def test_a_defect_of_the_gateway_costs_one_message(
    plain: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a stage raises: the message is a dead letter, to be replayed by a version without the defect.

    It is told once a delivery, with how many met it.
    """

    def fragile(limits: Limits) -> Decode:
        decode = decoders.json.decoder(limits)

        def broken(payload: bytes) -> list[Reading]:
            if b"boom" in payload:
                raise RecursionError("a defect")
            return decode(payload)

        return broken

    monkeypatch.setitem(decoders._FORMATS, "fragile", decoders.Format(fragile))
    tenant = Tenant(plain)
    async with Flow(settings_for(plain, {"decoder": "fragile"})) as flow:
        flow.take(tenant.message({"n": 0}))
        await flow.settle()
        sent = [{"n": 1}, {"boom": 1}, {"n": 2}, {"boom": 2}]
        with structlog.testing.capture_logs() as lines:
            flow.take(*map(tenant.message, sent))
            # The registry may begin to listen only now, and ask anew for the device meanwhile.
            assert await flow.settle() == {STORED: 3, DEAD: 2}
    assert [line["count"] for line in lines if line["event"] == "defect"] == [2]
    assert tenant.data() == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert tenant.letters() == [("gateway_defect", b'{"boom": 1}'), ("gateway_defect", b'{"boom": 2}')]


# ---------------------------------------------------------------- draining


async def test_drain_returns_at_once_when_nothing_is_held(plain: Databases) -> None:
    """Also before anything ever came."""
    async with Flow(settings_for(plain)) as flow:
        await asyncio.wait_for(flow.pipeline.wait_settled(), 1)


async def test_drain_waits_for_everything(plain: Databases) -> None:
    """What collects, what is written, what waits for the registry or the ledger: all of it settles, without idle."""
    tenant = Tenant(plain, "A", "B")
    async with Flow(settings_for(plain, batch={"linger": FOR_EVER})) as flow:
        flow.take(
            tenant.message({"n": 1}), tenant.message({"n": 1}, "B"), tenant.message({"n": 1}, "C"), idle=False
        )
        flow.take(tenant.message({"n": 2}, duplicate=True), idle=False, resumed=True, since=3)
        assert await flow.settle() == {STORED: 3, DEAD: 1}


# ---------------------------------------------------------------- large messages

SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_exists(NEW.data, 'padding') THEN PERFORM pg_sleep(2); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION slow()
"""


@pytest.mark.parametrize("connections", [1, 2])
async def test_others_do_not_wait_for_large_messages(shared: Databases, connections: int) -> None:
    """Their batches go one at a time, and by turns with those of others where there is one connection."""
    tenant = Tenant(shared, "A", "B")
    with altered(shared.timeseries_dsn, SLOW, without_trigger("slow")):
        async with Flow(settings_for(shared, writer={"connections": connections})) as flow:
            large = [tenant.message({"ts": NOW_MS + n, "padding": "x" * (2**20 - 1000)}) for n in range(4)]
            held = flow.pipeline.in_flight
            flow.take(large[0])
            await eventually_async(lambda: len(held.writing) == 1)
            flow.take(*large[1:])
            await eventually_async(lambda: not len(held.large))
            flow.take(tenant.message({"ts": NOW_MS, "n": 1}, "B"))
            await eventually_async(lambda: len(tenant.rows("B")) == 1)
            # A single connection wrote the one that was on its way before; beside another it waits for none.
            assert len(tenant.rows()) == (1 if connections == 1 else 0)
            assert await flow.settle() == {STORED: 5}
    assert len(tenant.rows()) == 4
