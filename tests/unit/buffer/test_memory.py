"""What waits in memory for a connection."""

from __future__ import annotations

from gateway.batches import Batch
from gateway.buffer.memory import Queue
from tests.support.batching import NOW_US, Filling, a_device, published


def fill(queue: Queue, count: int, *, size: int = 0) -> None:
    """So many messages more into the open batch, with so many bytes more in all."""
    filling = Filling(queue.open)
    for n in range(count):
        filling.keyed(a_device(), NOW_US + n, {"n": n})
    queue.open.size += size


def test_nothing_is_there_at_first() -> None:
    """An empty queue has no batch to write."""
    queue = Queue(max_messages=10, max_bytes=10_000)
    assert queue.take() is None
    assert not queue.full
    assert not queue.seal_if_full()
    assert [len(batch) for batch in queue] == [0]


def test_what_has_collected_is_taken_as_it_is() -> None:
    """The open batch goes when nothing is full; a new one begins."""
    queue = Queue(max_messages=10, max_bytes=1_000_000)
    fill(queue, 3)
    assert not queue.seal_if_full()
    taken = queue.take()
    assert taken is not None
    assert len(taken) == 3
    assert queue.take() is None


def test_full_batches_go_first_and_in_order() -> None:
    """By messages or by bytes; what collects behind them waits."""
    queue = Queue(max_messages=10, max_bytes=1_000_000)
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
    """Bounds are looked at between chunks: nothing is split, nothing is refused."""
    queue = Queue(max_messages=10, max_bytes=1_000_000)
    fill(queue, 95)
    assert queue.seal_if_full()
    assert [len(batch) for batch in queue] == [95, 0]


def test_dead_letters_fill_a_batch_too() -> None:
    """They are written with it."""
    queue = Queue(max_messages=2, max_bytes=1_000_000)
    filling = Filling(queue.open)
    for _ in range(2):
        filling.letter(published("t", b"{"))
    assert queue.seal_if_full()
