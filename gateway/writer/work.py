"""A batch on its way into the database, and how far it got.

Two kinds of failure are the batch's own. Data that the database refuses (*poison*) is sifted or halved until the bad
messages are known; they become dead letters at once. Anything else that fails again and again while the server works
(a trigger, a frozen chunk, a limit that the batch is too large for) is looked into likewise, but nothing says that a
message is to blame: what fails alone is *set apart*, and given up only beside others that are stored.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gateway import errors
from gateway.batches import Batch, Route, dead_letter_before
from gateway.messages import DeadLetter, Message
from gateway.outcomes import Outcome, Reason

PERSISTS = 3
"""So many failures in a row, with time between, and it is no accident."""
_REFUSALS = 8


class BatchRange(msgspec.Struct):
    """Messages of a batch, by index, and dead letters; what one transaction carries.

    Attributes:
        id: names the transaction in the ledger, also when it is tried again.
        uncertain: a try ended without an answer: it may have been committed.
        sifted: which of its messages fail by themselves was found out.
        refusals: how often messages of it were refused together.
    """

    indices: Sequence[int]
    letters: list[DeadLetter] = msgspec.field(default_factory=list)
    id: uuid.UUID = msgspec.field(default_factory=uuid.uuid4)
    uncertain: bool = False
    sifted: bool = False
    refusals: int = 0

    def halves(self) -> list[BatchRange]:
        """Two that together are this one, no more certain than it; none of a single message or dead letter."""
        halves = self._halves()
        for half in halves:
            half.uncertain, half.sifted = self.uncertain, self.sifted
        return halves

    def _halves(self) -> list[BatchRange]:
        count = len(self.indices)
        if count > 1:
            middle = count // 2
            return [BatchRange(self.indices[:middle]), BatchRange(self.indices[middle:], self.letters)]
        if count and self.letters:
            return [BatchRange(self.indices), BatchRange((), self.letters)]
        if len(self.letters) < 2:
            return []
        middle = len(self.letters) // 2
        return [BatchRange((), part) for part in (self.letters[:middle], self.letters[middle:])]

    def part(self, some: Collection[int]) -> BatchRange:
        """These messages go, and are another stretch, no more certain than this one; the letters stay."""
        apart = BatchRange([index for index in self.indices if index in some], uncertain=self.uncertain)
        self.indices = [index for index in self.indices if index not in some]
        return apart


class History(msgspec.Struct):
    """What became of tries to write messages that were set apart.

    Attributes:
        since: when they were set apart first, of :func:`time.monotonic`.
        beside: of the failures, how many came when others had been stored since the one before.
        rows: how many rows this process had stored at the last failure.
        tries: how often they were tried again.
        proven: since the last failure the database would have taken a reading like those that were stored.
    """

    since: float
    rows: int
    beside: int = 0
    tries: int = 0
    proven: bool = False

    def failed(self, rows: int) -> None:
        """They failed once more; so many rows were stored by now."""
        self.tries += 1
        self.beside += rows > self.rows or self.proven
        self.rows, self.proven = rows, False


class BatchWrite:
    """What is left to write of a batch, and how its messages ended so far.

    Attributes:
        outcomes: per message of the batch, once its stretch is done.
        dead_letter_outcomes: likewise of its dead letters.
        refused: dead letters for messages that the database refuses, by index.
        left: stretches not written yet, the last is next.
        suspect: it failed again and again while the server worked: its own fault is looked for.
        alone: how often each message failed alone, by index.
        error: why it failed last.
        rows_before: how many rows this process had stored when it failed first; None: it did not.
        history: None: it was never set apart.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.outcomes: list[Outcome] = [Outcome.STORED] * len(batch.numbers)
        self.dead_letter_outcomes: list[Outcome] = [Outcome.DEAD_LETTERED] * len(batch.dead_letters)
        self.refused: dict[int, DeadLetter] = {}
        self.left = [BatchRange(range(len(batch.numbers)), list(batch.dead_letters))]
        self.suspect = False
        self.alone: Counter[int] = Counter()
        self.error: errors.StoreError | None = None
        self.rows_before: int | None = None
        self.history: History | None = None
        self._failures = self._fruitless = 0
        self._tried: set[uuid.UUID] = set()

    @property
    def next(self) -> BatchRange:
        """The stretch to write now."""
        return self.left[-1]

    def letters(self) -> list[DeadLetter]:
        """The dead letters that go with the next stretch: all of the batch with the last one."""
        return self.next.letters

    def known_again(self) -> list[tuple[int, Message]]:
        """Number and message of those of the next stretch that only the ledger can recognise when they come again."""
        batch = self.batch
        found = [(letter.number, letter.message) for letter in self.letters()]
        if batch.untimed or batch.ids:
            # Over the stretch, not the batch: halving comes here 2n times.
            indices = [index for index in self.next.indices if index in batch.untimed or index in batch.ids]
            found[:0] = [(batch.numbers[index], batch.messages[index]) for index in indices]
        return found

    def replayed(self) -> dict[int, uuid.UUID]:
        """The messages of the next stretch that were dead letters, and which, by index."""
        if not self.batch.replayed:
            return {}
        messages = self.batch.messages
        letters = {index: dead_letter_before(messages[index]) for index in self.next.indices}
        return {index: letter for index, letter in letters.items() if letter is not None}

    def fit(self, most: int) -> None:
        """Divide the next stretch when it has more messages than go into one transaction."""
        stretch = self.next
        count = len(stretch.indices)
        if count > most:
            parts = [
                BatchRange(stretch.indices[start : start + most], uncertain=stretch.uncertain)
                for start in range(0, count, most)
            ]
            parts[-1].letters = stretch.letters
            self.left[-1:] = parts[::-1]

    def written_dead_letters(self) -> list[DeadLetter]:
        """The dead letters that are in their table, once nothing is left."""
        own = zip(self.batch.dead_letters, self.dead_letter_outcomes, strict=True)
        refused = ((letter, self.outcomes[index]) for index, letter in self.refused.items())
        return [letter for letter, outcome in (*own, *refused) if outcome is Outcome.DEAD_LETTERED]

    def spooled(self) -> None:
        """All that is left is in the spool."""
        refused = {id(letter): index for index, letter in self.refused.items()}
        own = {id(letter): at for at, letter in enumerate(self.batch.dead_letters)}
        for stretch in self.left:
            for index in stretch.indices:
                self.outcomes[index] = Outcome.SPOOLED
            for letter in stretch.letters:
                if id(letter) in own:
                    self.dead_letter_outcomes[own[id(letter)]] = Outcome.SPOOLED
                else:
                    self.outcomes[refused[id(letter)]] = Outcome.SPOOLED
        self.left.clear()

    def ended(self, outcomes: Mapping[int, Outcome]) -> None:
        """So these messages of the next stretch ended, by index."""
        for index, outcome in outcomes.items():
            self.outcomes[index] = outcome

    def dead_lettered(self, letters: Mapping[int, DeadLetter]) -> None:
        """These messages of the next stretch, by index, were written as dead letters with it."""
        self.refused.update(letters)
        self.ended(dict.fromkeys(letters, Outcome.DEAD_LETTERED))

    def unanswered(self) -> None:
        """The try of the next stretch may have been committed, although no answer says so."""
        self.next.uncertain = True

    def begin_history(self, now: float, rows: int) -> History:
        """The history of its tries, from ``now`` on where it has none; ``rows``: stored by this process so far."""
        if self.history is None:
            self.history = History(now, rows if self.rows_before is None else self.rows_before)
        return self.history

    def done(self) -> None:
        """The next stretch is committed."""
        self.left.pop()
        self._failures = self._fruitless = 0

    def isolate(self, error: errors.PoisonError) -> bool:
        """Halve the stretch that the database refuses, or give up on it when it is a single message.

        Returns:
            No: it is a single dead letter that is refused, for which there is no other place.
        """
        stretch = self.next
        if halves := stretch.halves():
            self.left[-1:] = halves[::-1]
        elif stretch.letters:
            return False
        else:
            self.left.pop()
            self._refuse({index: refused_by_database(str(error)) for index in stretch.indices})
        return True

    def refuse(self, refusals: Mapping[int, errors.MessageError]) -> None:
        """These messages of the next stretch, by index, become dead letters; the others of it are still to be written.

        What is left of a stretch may be refused in part again; not for ever, then it is halved.
        """
        stretch = self.next
        stretch.refusals += 1
        if stretch.refusals > _REFUSALS and (halves := stretch.halves()):
            self.left[-1:] = halves[::-1]
        else:
            stretch.part(refusals)
            self._refuse(refusals)

    def _refuse(self, refusals: Mapping[int, errors.MessageError]) -> None:
        letters = []
        for index, error in refusals.items():
            letter = self.batch.dead_letter_for(index, error)
            self.outcomes[index], self.refused[index] = Outcome.DEAD_LETTERED, letter
            letters.append(letter)
        if not self.left or self.alone:  # what is left may fail again: the letters go by themselves
            self.left.append(BatchRange((), letters))
            return
        last = self.left[0]
        if last.indices:
            # By themselves: beside a message that is refused too, they would be tried once more.
            earlier, last.letters = last.letters, []
            last = BatchRange((), earlier)
            self.left.insert(0, last)
        last.letters += letters

    # ------------------------------------------------------------------ failures of unknown cause

    def begin_round(self) -> None:
        """Everything that is left may be tried again."""
        self._tried.clear()
        self._fruitless = 0

    def persists(self, error: errors.StoreError, rows: int) -> bool:
        """Whether the batch has failed too often for this to be an accident, or trouble of the whole server.

        Args:
            rows: how many this process has stored by now.
        """
        self._failures += 1
        self.rows_before = rows if self.rows_before is None else self.rows_before
        # Without its traceback: the frames in it know this work, and would keep it when it is done.
        self.error = type(error)(str(error), error.sqlstate, of_all=error.of_all)
        return not error.of_all and (self.suspect or self._failures >= PERSISTS)

    def set_apart(self, *, thorough: bool) -> bool:
        """The next stretch failed for a reason that may be its own: halve it, or leave it for later.

        Args:
            thorough: others were stored meanwhile, so what is at fault is in here: it is looked for to the end.
                Otherwise only as long as it takes to find one message that can be stored, if it is not all that fail.

        Returns:
            Whether to go on with the rest now; no: others first.
        """
        self.suspect = True
        stretch = self.next
        self._fruitless += 1
        if halves := stretch.halves():
            self.left[-1:] = halves[::-1]
        else:
            self._leave(self.left.pop())
        enough = 2 * len(self.batch.numbers).bit_length() + 2
        return self.next.id not in self._tried and (thorough or self._fruitless <= enough)

    def leave(self, failing: Collection[int]) -> bool:
        """These messages of the next stretch fail by themselves: they are left for later, together.

        Returns:
            Whether there is a rest to go on with now.
        """
        self.suspect = True
        apart = self.next.part(failing)
        if not (self.next.indices or self.next.letters):
            self.left.pop()
        apart.sifted = True
        self._leave(apart)
        return self.next.id not in self._tried

    def _leave(self, stretch: BatchRange) -> None:
        """Each of its messages failed alone."""
        self.alone.update(stretch.indices)
        self._tried.add(stretch.id)
        self.left.insert(0, stretch)

    def give_up(self, least: int) -> None:
        """Messages that failed alone so often become dead letters; those are still to be written."""
        found = {index for stretch in self.left for index in stretch.indices if self.alone[index] >= least}
        if not found:
            return
        for stretch in self.left:
            stretch.part(found)
        self.left = [stretch for stretch in self.left if stretch.indices or stretch.letters]
        self._refuse(
            {
                one: refused_by_database(f"failed alone {self.alone[one]} times: {self.error}")
                for one in sorted(found)
            }
        )

    def parted(self) -> tuple[BatchWrite, BatchWrite]:
        """What is done, and what is left, each a work of its own."""
        waits = [index for stretch in self.left for index in stretch.indices]
        unwritten = {letter.identity for stretch in self.left for letter in stretch.letters}
        refused = [index for index, letter in self.refused.items() if letter.identity in unwritten]
        letters = [at for at, letter in enumerate(self.batch.dead_letters) if letter.identity in unwritten]
        not_done = {*waits, *refused}
        done_indices = [index for index in range(len(self.outcomes)) if index not in not_done]
        done_letters = sorted(set(range(len(self.batch.dead_letters))) - set(letters))
        done, rest = (
            BatchWrite(self.batch.pick(done_indices, done_letters)),
            BatchWrite(self.batch.pick(waits, letters)),
        )
        done.left = []
        done.outcomes = [self.outcomes[index] for index in done_indices]
        done.refused = {
            at: self.refused[index] for at, index in enumerate(done_indices) if index in self.refused
        }
        for index in refused:
            rest._add_letter(self.batch.numbers[index], self.batch.routes[index], self.refused[index])
        rest._take_over(self, waits)
        return done, rest

    def _add_letter(self, number: int, route: Route, letter: DeadLetter) -> None:
        self.batch.add_dead_letter(number, route, letter)
        self.dead_letter_outcomes.append(Outcome.DEAD_LETTERED)

    def _take_over(self, whole: BatchWrite, indices: list[int]) -> None:
        """Where the other work was with these messages, in their order."""
        at, self.left = 0, []
        for stretch in whole.left:
            count = len(stretch.indices)
            self.left.append(
                BatchRange(range(at, at + count), stretch.letters, stretch.id, stretch.uncertain)
            )
            at += count
        self.alone = Counter({new: whole.alone[old] for new, old in enumerate(indices) if whole.alone[old]})
        self.suspect, self.error, self.history = whole.suspect, whole.error, whole.history
        self.rows_before = whole.rows_before


def refused_by_database(why: str) -> errors.MessageError:
    """What becomes of a message that the database refuses."""
    return errors.MessageError(Reason.REFUSED_BY_DATABASE, why)
