"""The redelivery ledger, on both engines: it knows what was stored under which packet id, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import pytest

from gateway.messages import Message
from gateway.writer import ledger as ledger_module
from gateway.writer.ledger import WINDOW, Ledger, digest, written
from tests.support.batching import published
from tests.support.written import Table


@pytest.fixture
def client() -> str:
    """A client id that no other test has."""
    return str(uuid.uuid4())


def message(packet_id: int, payload: bytes = b'{"n": 1}', topic: str = "t/acme/S-1") -> Message:
    """A message under this packet id."""
    return published(topic, payload, packet_id=packet_id)


async def enter(ledger: Ledger, table: Table, before: int, *messages: Message) -> uuid.UUID:
    """Write these messages as a batch before whose end so many others came."""
    batch_id = uuid.uuid4()
    async with table.transaction():
        await ledger.write(table, batch_id, before + 1, messages)
    return batch_id


async def known(client: str, table: Table, messages: Iterable[Message]) -> list[bool]:
    """Which of these the ledger knows after a restart."""
    ledger = Ledger(client)
    await ledger.load(table, 0)
    return [ledger.knows(one) for one in messages]


async def test_it_knows_what_was_stored(table: Table, client: str) -> None:
    """The same packet id with the same topic and bytes, and no other."""
    await enter(Ledger(client), table, 2, message(1), message(65_535, b""), message(7, b"\xff"))
    asked = [
        (message(1), True),
        (message(65_535, b""), True),
        (message(7, b"\xff"), True),
        (message(2), False),
        (message(1, b'{"n": 2}'), False),
        (message(1, topic="t/acme/S-2"), False),
        (published("t/acme/S-1", b'{"n": 1}', qos=0), False),
    ]
    found = await known(client, table, [one for one, _ in asked])
    assert [expected for _, expected in asked] == found


async def test_packet_ids_mean_something_under_their_client_only(table: Table, client: str) -> None:
    """Workers and gateways each have their own."""
    await enter(Ledger(client), table, 0, message(1))
    assert await known(f"{client}-2", table, [message(1)]) == [False]


def test_a_digest_is_of_topic_and_payload() -> None:
    """Where one ends and the other begins counts too."""
    assert digest(message(1, b"0", "t/S-1")) != digest(message(1, b"", "t/S-10"))
    assert digest(message(1)) == digest(message(2))
    assert len(digest(message(1))) == 8


async def test_it_knows_nothing_before_it_has_looked(table: Table, client: str) -> None:
    """What was stored before a connection must be loaded for that connection."""
    ledger = Ledger(client)
    await enter(ledger, table, 0, message(1))
    assert not ledger.loaded(1)
    assert not ledger.knows(message(1))
    await ledger.load(table, 1)
    assert ledger.loaded(1)
    assert not ledger.loaded(2)
    assert ledger.knows(message(1))


async def test_a_packet_id_speaks_of_the_latest_message_under_it(table: Table, client: str) -> None:
    """Ids come again; the earlier message was acknowledged, or the broker could not have reused its id."""
    ledger = Ledger(client)
    await enter(ledger, table, 0, message(1, b"earlier"))
    await enter(ledger, table, 1, message(1, b"later"))
    assert await known(client, table, [message(1, b"earlier"), message(1, b"later")]) == [False, True]


@pytest.mark.parametrize(("after", "believed"), [(WINDOW - 1, True), (WINDOW, False)])
async def test_a_row_is_believed_as_long_as_ids_last(
    table: Table, client: str, after: int, believed: bool
) -> None:
    """With 65 535 more messages received, every packet id may have come again."""
    ledger = Ledger(client)
    await enter(ledger, table, 0, message(1))
    await enter(ledger, table, after, message(2))
    assert await known(client, table, [message(1), message(2)]) == [believed, True]


async def test_the_count_goes_on_after_a_restart(table: Table, client: str) -> None:
    """Each process counts from 0; the ledger goes on where it was."""
    await enter(Ledger(client), table, 40_000, message(1))
    await enter(Ledger(client), table, 20_000, message(2))
    assert await known(client, table, [message(1), message(2)]) == [True, True]
    await enter(Ledger(client), table, 30_000, message(3))
    assert await known(client, table, [message(1), message(2), message(3)]) == [True, True, True]
    await enter(Ledger(client), table, 20_000, message(4))
    assert await known(client, table, [message(n) for n in (1, 2, 3, 4)]) == [False, True, True, True]


async def test_it_prunes_exactly_what_it_does_not_believe(
    table: Table, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows stay, however long the daemon runs; rows of others stay."""
    monkeypatch.setattr(ledger_module, "_PRUNE_EVERY", 10)
    other = Ledger(f"{client}-2")
    await enter(other, table, 0, message(1))
    ledger = Ledger(client)
    for n in range(20):
        await enter(ledger, table, n * 10_000, message(n + 1))
    left = "SELECT array_agg(received ORDER BY received) FROM redelivery_ledger WHERE client_id = $1"
    assert await table.fetchval(left, client) == [n * 10_000 + 1 for n in range(13, 20)]
    assert await known(client, table, [message(n + 1) for n in range(12, 20)]) == [False] + [True] * 7
    assert await table.fetchval(left, other.client_id) == [1]


async def test_a_transaction_can_be_asked_for_by_its_id(table: Table, client: str) -> None:
    """After a lost answer: committed or not. Entering it again changes nothing."""
    ledger, batch_id = Ledger(client), uuid.uuid4()
    assert not await written(table, batch_id)
    for _ in range(2):
        await ledger.write(table, batch_id, 1, [message(1)])
    assert await written(table, batch_id)
    assert await table.fetchval("SELECT count(*) FROM redelivery_ledger WHERE client_id = $1", client) == 1


async def test_what_no_packet_id_can_recognise_takes_no_row(table: Table, client: str) -> None:
    """At QoS 0 nothing is delivered again."""
    await enter(Ledger(client), table, 0, published("t", b"", qos=0))
    assert await table.fetchval("SELECT count(*) FROM redelivery_ledger WHERE client_id = $1", client) == 0
