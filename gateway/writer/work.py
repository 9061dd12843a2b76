"""A batch on its way into the database, and how far it got."""

from __future__ import annotations

import uuid

import msgspec

from gateway import errors
from gateway.batches import Batch, letter_before
from gateway.messages import DeadLetter, Message
from gateway.outcomes import Outcome, Reason


class Stretch(msgspec.Struct):
    """Messages ``start`` to ``stop`` of a batch; what one transaction carries.

    Attributes:
        id: names the transaction in the ledger, also when it is tried again.
        uncertain: a try ended without an answer: it may have been committed.
    """

    start: int
    stop: int
    id: uuid.UUID = msgspec.field(default_factory=uuid.uuid4)
    uncertain: bool = False


class Work:
    """What is left to write of a batch, and how its messages ended so far.

    Attributes:
        outcomes: per message of the batch, once its stretch is done.
        refused: dead letters for messages that the database refuses, by index.
        letters_outcome: how the dead letters of the batch end.
        left: stretches not written yet, the last is next.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.outcomes: list[Outcome] = [Outcome.STORED] * len(batch.numbers)
        self.refused: dict[int, DeadLetter] = {}
        self.letters_outcome = Outcome.DEAD_LETTERED
        self.left = [Stretch(0, len(batch.numbers))]

    @property
    def next(self) -> Stretch:
        """The stretch to write now."""
        return self.left[-1]

    def letters(self) -> list[DeadLetter]:
        """The dead letters that go with the next stretch: all of the batch with the last one."""
        return [*self.batch.letters, *self.refused.values()] if len(self.left) == 1 else []

    def known_again(self) -> list[Message]:
        """The messages of the next stretch that only the ledger can recognise when they are delivered again."""
        stretch, batch = self.next, self.batch
        found = [letter.message for letter in self.letters()]
        if batch.unkeyed or batch.ids:
            # Over the stretch, not the batch: halving comes here 2n times.
            inside = range(stretch.start, stretch.stop)
            indices = [index for index in inside if index in batch.unkeyed or index in batch.ids]
            found[:0] = [batch.messages[index] for index in indices]
        return found

    def replayed(self) -> dict[int, uuid.UUID]:
        """The messages of the next stretch that were dead letters, and which, by index."""
        if not self.batch.replayed:
            return {}
        stretch, messages = self.next, self.batch.messages
        letters = {index: letter_before(messages[index]) for index in range(stretch.start, stretch.stop)}
        return {index: letter for index, letter in letters.items() if letter is not None}

    def isolate(self, error: errors.PoisonError) -> None:
        """Halve the stretch that the database refuses, or give up on it when it is a single message.

        Raises:
            TransientError: it is the dead letters that are refused; they are held.
        """
        stretch = self.next
        if stretch.stop - stretch.start > 1:
            middle = (stretch.start + stretch.stop) // 2
            self.left[-1:] = [Stretch(middle, stretch.stop), Stretch(stretch.start, middle)]
            return
        if stretch.start == stretch.stop:
            raise errors.TransientError(f"dead letters refused: {error}", error.sqlstate)
        index = stretch.start
        refusal = errors.MessageError(Reason.REFUSED_BY_DATABASE, str(error))
        self.outcomes[index] = Outcome.DEAD_LETTERED
        self.refused[index] = self.batch.letter_for(index, refusal)
        # An empty stretch stays, to carry the dead letters.
        self.left[-1] = Stretch(stretch.stop, stretch.stop)
