"""What the writers of a process have met, shared so that one learns from the others."""

from __future__ import annotations

import time

_ANY = 2**31
_FORGET_SECONDS = 300.0
_CONFLICTS_SECONDS = 10.0

StoredRows = tuple[str, bytes]
"""The table of a message's rows, and these, encoded."""


class Experience:
    """Learnt from failures and commits.

    Attributes:
        rows: rows stored; that it grows is the evidence that the database takes what others write.
        most: messages in one transaction: so many went through when more did not.
        sample: of a message that was stored lately.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.most = _ANY
        self.sample: StoredRows | None = None
        self._learnt = 0.0
        self._conflicts_until = 0.0

    def conflicted(self) -> None:
        """Keys were taken: for a while more such are expected."""
        self._conflicts_until = time.monotonic() + _CONFLICTS_SECONDS

    @property
    def conflicts(self) -> bool:
        """Whether keys may be taken, also by a transaction under way on another connection."""
        return time.monotonic() < self._conflicts_until

    def stored(self, count: int, sample: StoredRows | None = None) -> None:
        """So many rows were committed; ``sample``: of one message."""
        self.rows += count
        self.sample = sample or self.sample
        if self.most < _ANY and time.monotonic() - self._learnt > _FORGET_SECONDS:
            self.too_many(4 * self.most)

    def too_many(self, count: int) -> None:
        """So many messages were too much for one transaction; half of them may not be."""
        self.most = min(max(1, count // 2), _ANY)
        self._learnt = time.monotonic()
