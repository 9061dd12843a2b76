"""The redelivery ledger, on both engines: it knows what was stored under which packet id, and nothing else."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from gateway.messages import PACKET_IDS, Message, digest
from gateway.writer import ledger as ledger_module
from gateway.writer.ledger import written
from tests.support.batching import published
from tests.support.databases import Databases
from tests.support.sessions import MemoryStore, a_ledger, sessions_in
from tests.support.written import Table


@pytest.fixture
def client() -> str:
    """A client id that no other test has."""
    return str(uuid.uuid4())


def message(packet_id: int, payload: bytes = b'{"n": 1}', topic: str = "t/acme/S-1") -> Message:
    """A message under this packet id."""
    return published(topic, payload, packet_id=packet_id)


class Life:
    """What a process enters in the ledger, in a session that it or an earlier one has begun.

    Args:
        before: the life whose session the broker has resumed; None: a new session.
    """

    def __init__(self, client: str, before: Life | None = None) -> None:
        self.store: MemoryStore = MemoryStore() if before is None else before.store
        self.sessions = sessions_in(self.store)
        self.session = self.sessions.inherited if before else self.sessions.begin()
        self.ledger = a_ledger(client, self.sessions)

    async def enter(self, table: Table, turn: int, *messages: Message) -> uuid.UUID:
        """Write these as a batch whose last message was this turn's."""
        batch_id = uuid.uuid4()
        self.session.first = self.session.first or (turn - 1) % PACKET_IDS + 1
        async with table.transaction():
            await self.ledger.write(table, batch_id, self.session, turn, list(enumerate(messages)))
        await self.sessions.save()
        return batch_id

    async def knows(self, table: Table, *messages: Message) -> list[bool]:
        """Which of these it knows."""
        if not self.session.first:  # something new has come that needs no ledger
            await self.sessions.look_up()
            self.session.first = (
                self.sessions.before.confirmed if self.sessions.before else 0
            ) % PACKET_IDS + 1
        await self.ledger.load(table, self.session, 0)
        return [self.ledger.knows(one) for one in messages]


async def known(client: str, table: Table, before: Life, *messages: Message) -> list[bool]:
    """Which of these the ledger knows after a restart."""
    return await Life(client, before).knows(table, *messages)


async def test_it_knows_what_was_stored(table: Table, client: str) -> None:
    """The same packet id with the same topic and bytes, and no other."""
    life = Life(client)
    await life.enter(table, 65_535, message(65_530), message(65_535, b""), message(65_531, b"\xff"))
    asked = [
        (message(65_530), True),
        (message(65_535, b""), True),
        (message(65_531, b"\xff"), True),
        (message(65_532), False),
        (message(65_530, b'{"n": 2}'), False),
        (message(65_530, topic="t/acme/S-2"), False),
        (published("t/acme/S-1", b'{"n": 1}', qos=0), False),
    ]
    found = await known(client, table, life, *(one for one, _ in asked))
    assert [expected for _, expected in asked] == found


async def test_packet_ids_mean_something_under_their_client_only(table: Table, client: str) -> None:
    """Workers and gateways each have their own."""
    life = Life(client)
    await life.enter(table, 1, message(1))
    assert await known(f"{client}-2", table, life, message(1)) == [False]


async def test_packet_ids_mean_something_in_their_session_only(table: Table, client: str) -> None:
    """A broker that lost the session hands out the same ids for other messages, of the same bytes perhaps."""
    earlier = Life(client)
    await earlier.enter(table, 1, message(1))
    later = Life(client)
    await later.sessions.save()
    assert await known(client, table, later, message(1)) == [False]
    assert await known(client, table, earlier, message(1)) == [True]


async def test_what_the_broker_has_read_is_not_believed(table: Table, client: str) -> None:
    """It is free to use the packet ids again, for messages of the same bytes."""
    life = Life(client)
    await life.enter(table, 3, message(1), message(2), message(3))
    life.sessions.confirmed(2, number=2, before=2)
    await life.sessions.save()
    assert await known(client, table, life, message(1), message(2), message(3)) == [False, False, True]


async def test_nothing_is_believed_of_a_broker_that_reuses_packet_ids(table: Table, client: str) -> None:
    """HiveMQ has 50, RabbitMQ begins anew at each connection; what was seen once counts in new sessions too."""
    life = Life(client)
    await life.enter(table, 50, message(50))
    life.sessions.out_of_turn()
    await life.sessions.save()
    assert await known(client, table, life, message(50)) == [False]
    later = Life(client, life)
    await later.sessions.look_up()
    later.session = later.sessions.begin()
    await later.enter(table, 1, message(1))
    assert await known(client, table, later, message(1)) == [False]


def test_a_digest_is_of_topic_and_payload() -> None:
    """Where one ends and the other begins counts too."""
    assert digest(message(1, b"0", "t/S-1")) != digest(message(1, b"", "t/S-10"))
    assert digest(message(1)) == digest(message(2))
    assert len(digest(message(1))) == 8


async def test_what_a_killed_process_commits_late_is_waited_for(
    table: Table, client: str, shared: Databases
) -> None:
    """Its COMMIT was sent, and the server is still at it when the next process looks."""
    life = Life(client)
    killed = await asyncpg.connect(shared.timeseries_dsn)
    late = killed.transaction()
    await late.start()
    life.session.first = 1
    await life.ledger.write(killed, uuid.uuid4(), life.session, 1, [(0, message(1))])
    await life.sessions.save()
    looking = asyncio.create_task(known(client, table, life, message(1)))
    await asyncio.wait([looking], timeout=0.3)
    assert not looking.done()
    await late.commit()
    assert await looking == [True]
    await killed.close(timeout=5)


async def test_a_transaction_that_hangs_is_not_waited_for_long(
    table: Table, client: str, shared: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather twice than never: its process may be cut off, and the server does not know."""
    monkeypatch.setattr(ledger_module, "_COMMIT_SECONDS", 0.3)
    life = Life(client)
    await life.enter(table, 1, message(1))
    hanging = await asyncpg.connect(shared.timeseries_dsn)
    async with hanging.transaction():
        await life.ledger.write(hanging, uuid.uuid4(), life.session, 2, [(1, message(2))])
        assert await known(client, table, life, message(1), message(2)) == [True, False]
    await hanging.close(timeout=5)


async def test_it_knows_nothing_before_it_has_looked(table: Table, client: str) -> None:
    """What was stored before a connection must be loaded for its session."""
    life = Life(client)
    await life.enter(table, 1, message(1))
    later = Life(client, life)
    later.session.first = 1
    assert not later.ledger.loaded(later.session, 0)
    assert not later.ledger.knows(message(1))
    await later.ledger.load(table, later.session, 0)
    assert later.ledger.loaded(later.session, 0)
    assert not later.ledger.loaded(later.session, 2)
    assert not later.ledger.loaded(life.session, 0)
    assert later.ledger.knows(message(1))


async def test_a_packet_id_speaks_of_the_latest_message_under_it(table: Table, client: str) -> None:
    """Ids come again; the earlier message was acknowledged, or the broker could not have reused its id."""
    life = Life(client)
    await life.enter(table, 1, message(1, b"earlier"))
    await life.enter(table, PACKET_IDS + 1, message(1, b"later"))
    assert await known(client, table, life, message(1, b"earlier"), message(1, b"later")) == [False, True]


@pytest.mark.parametrize(("after", "believed"), [(PACKET_IDS - 1, True), (PACKET_IDS, False)])
async def test_a_row_is_believed_as_long_as_ids_last(
    table: Table, client: str, after: int, believed: bool
) -> None:
    """With 65 535 more messages received, every packet id may have come again."""
    life = Life(client)
    await life.enter(table, 5, message(5))
    last = message((5 + after - 1) % PACKET_IDS + 1, b"other")
    await life.enter(table, 5 + after, last)
    found = await known(client, table, life, message(5), last)
    assert found == [believed, True]


async def test_positions_go_on_after_a_restart(table: Table, client: str) -> None:
    """Each process counts from the first packet id that it receives; the session's positions go on where they were."""
    first = Life(client)
    await first.enter(table, 40_000, message(40_000))
    first.sessions.confirmed(39_000, number=39_000, before=0)
    await first.sessions.save()
    second = Life(client, first)
    await second.enter(table, 60_000, message(60_000))
    second.sessions.confirmed(59_000, number=59_000, before=0)
    await second.sessions.save()
    assert (await known(client, table, second, message(40_000), message(60_000))) == [False, True]
    third = Life(client, second)
    await third.enter(table, 10_000, message(10_000))  # the ids have begun anew: position 75 535
    asked = message(60_000), message(10_000)
    assert await known(client, table, third, *asked) == [True, True]
    assert (
        await table.fetchval("SELECT max(received) FROM redelivery_ledger WHERE client_id = $1", client)
        == PACKET_IDS + 10_000
    )


async def test_it_prunes_what_it_does_not_believe(
    table: Table, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows stay, however long the daemon runs; none of an earlier session, all of other clients."""
    monkeypatch.setattr(ledger_module, "_PRUNE_EVERY", 10)
    other, earlier, life = Life(f"{client}-2"), Life(client), Life(client)
    for one in other, earlier:
        await one.enter(table, 1, message(1))
    await table.execute(
        "UPDATE redelivery_ledger SET written_at = now() - interval '25 h' WHERE received = 1"
    )
    for n in range(20):
        await life.enter(table, n * 10_000 + 1, message(n + 1))
    left = "SELECT array_agg(received ORDER BY received) FROM redelivery_ledger WHERE client_id = $1"
    assert await table.fetchval(left, client) == [n * 10_000 + 1 for n in range(13, 20)]
    assert await table.fetchval(left, other.ledger.client_id) == [1]


async def test_a_transaction_can_be_asked_for_by_its_id(table: Table, client: str) -> None:
    """After a lost answer: committed or not. Entering it again changes nothing."""
    life, batch_id = Life(client), uuid.uuid4()
    life.session.first = 1
    assert not await written(table, batch_id)
    for _ in range(2):
        await life.ledger.write(table, batch_id, life.session, 1, [(0, message(1))])
    assert await written(table, batch_id)
    assert await table.fetchval("SELECT count(*) FROM redelivery_ledger WHERE client_id = $1", client) == 1


async def test_what_no_packet_id_can_recognise_takes_no_row(table: Table, client: str) -> None:
    """At QoS 0 nothing is delivered again."""
    await Life(client).enter(table, 1, published("t", b"", qos=0))
    assert await table.fetchval("SELECT count(*) FROM redelivery_ledger WHERE client_id = $1", client) == 0
