"""What waits in memory for a connection."""

from __future__ import annotations

from gateway import settings
from gateway.batches import Batch
from gateway.ingest.queue import Queue
from tests.support.batching import NOW_US, Filling, StubRoute, a_device, published


def fill(queue: Queue, count: int, *, size: int = 0) -> None:
    """So many messages more into the open batch, with so many bytes more in all."""
    filling = Filling(queue.open)
    for n in range(count):
        filling.timed(a_device(), NOW_US + n, {"n": n})
    queue.open.row_bytes += size


def test_nothing_is_there_at_first() -> None:
    """An empty queue has no batch to write."""
    queue = Queue(max_rows=10, max_bytes=10_000)
    assert queue.take() is None
    assert not queue.full
    assert not queue.seal_if_full()
    assert [len(batch) for batch in queue] == [0]


def test_what_has_collected_is_taken_as_it_is() -> None:
    """The open batch goes when nothing is full; a new one begins."""
    queue = Queue(max_rows=10, max_bytes=1_000_000)
    fill(queue, 3)
    assert not queue.seal_if_full()
    taken = queue.take()
    assert taken is not None
    assert len(taken) == 3
    assert queue.take() is None


def test_full_batches_go_first_and_in_order() -> None:
    """By rows or by bytes; what collects behind them waits."""
    queue = Queue(max_rows=10, max_bytes=1_000_000)
    fill(queue, 10)
    assert queue.seal_if_full()
    fill(queue, 1, size=1_000_000)
    assert queue.seal_if_full()
    fill(queue, 2)
    assert queue.seal_if_full()
    assert [len(batch) for batch in queue] == [10, 1, 2]
    taken: list[Batch | None] = [queue.take() for _ in range(4)]
    assert [len(batch) for batch in taken if batch is not None] == [10, 1, 2]
    assert taken[-1] is None
    assert not queue.full


def test_a_chunk_may_exceed_the_bound_once() -> None:
    """Bounds are looked at between deliveries: nothing is split, nothing is refused."""
    queue = Queue(max_rows=10, max_bytes=1_000_000)
    fill(queue, 95)
    assert queue.seal_if_full()
    assert [len(batch) for batch in queue] == [95, 0]


def test_rows_are_counted_not_messages_and_bytes_as_they_are_encoded() -> None:
    """A message of many readings is many rows; what a message costs in memory is for ``buffer.max_bytes`` to bound."""
    queue = Queue(max_rows=100, max_bytes=1_000_000)
    for number in range(2):
        queue.open.add(number, published("t", b"x" * 600_000), StubRoute(), NOW_US, b"r" * 60, readings=49)
    assert not queue.seal_if_full()
    queue.open.add(2, published("t", b"x"), StubRoute(), NOW_US, b"r" * 2, readings=2)
    assert queue.seal_if_full()
    assert (queue.open.row_count, queue.open.row_bytes) == (0, 0)


def test_the_defaults_can_both_be_reached() -> None:
    """Short rows fill a batch by their number, long ones by their bytes."""
    defaults = settings.BatchSettings()
    for row_bytes, by_rows in (100, True), (1000, False):
        queue = Queue(max_rows=defaults.max_rows, max_bytes=defaults.max_bytes)
        while not queue.full:
            queue.open.add(0, published("t", b"x" * 150), StubRoute(), NOW_US, b"r" * row_bytes)
            queue.seal_if_full()
        batch = queue.take()
        assert batch is not None
        assert (len(batch) == defaults.max_rows) is by_rows


def test_dead_letters_fill_a_batch_too() -> None:
    """They are written with it."""
    queue = Queue(max_rows=2, max_bytes=1_000_000)
    filling = Filling(queue.open)
    for _ in range(2):
        filling.letter(published("t", b"{"))
    assert queue.seal_if_full()
