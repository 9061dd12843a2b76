"""What the demo proves at its end: what was published, what the gateway says, what the database holds. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from gateway.tools.demo.drawing import equation, number
from gateway.tools.demo.fleet import WRONG, Intent
from gateway.tools.demo.tables import Counts

_NAMES = {
    Intent.UNKNOWN_DEVICE: "unknown device",
    Intent.BROKEN_JSON: "broken JSON",
    Intent.OUT_OF_RANGE: "value out of range",
    Intent.CLOCK_YEAR_OFF: "clock a year off",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """Two counts, from different places, that must be equal."""

    count: int
    of: str
    found: int
    where: str

    @property
    def held(self) -> bool:
        """Whether they are."""
        return self.count == self.found

    def __str__(self) -> str:
        mark, sign = ("✓", "=") if self.held else ("✗", "≠")
        return f"  {mark} {number(self.count):>9} {self.of:<20} {sign} {number(self.found):>9} {self.where}"


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """The figures of a whole run.

    Attributes:
        published: messages that the broker took from the fleet, by intent.
        books: what the gateway said last.
        added: rows that the database holds more than before.
        exit_code: of the gateway.
    """

    published: Mapping[Intent, int]
    books: Mapping[str, int]
    added: Counts
    exit_code: int | None

    @property
    def held(self) -> bool:
        """Whether nothing was lost, nothing stored twice, and everything counted right."""
        books = all(self.books[name] == 0 for name in ("balance", "in_flight"))
        return books and self.exit_code == 0 and all(check.held for check in self.checks())

    def checks(self) -> Iterator[Check]:
        """Each claim with its two counts."""
        books, total = self.books, sum(self.published.values())
        dead = self.added.dead_letters
        yield Check(total, "published", books["received"] - books["duplicate"], "received")
        yield Check(books["stored"], "stored", self.added.rows, "rows in telemetry")
        yield Check(books["dead_lettered"], "dead_lettered", dead.total(), "rows in dead_letters")
        for intent in WRONG:
            reason = intent.value
            yield Check(
                self.published.get(intent, 0), _NAMES[intent], dead[reason], f"dead letters: {reason}"
            )
        yield Check(total, "published", self.added.rows + dead.total(), "rows and dead letters")

    def lines(self) -> Iterator[str]:
        """The proof for people."""
        yield equation(self.books)
        yield ""
        yield from map(str, self.checks())
        mark = "✓" if self.exit_code == 0 else "✗"
        yield f"  {mark} the gateway ended with exit code {self.exit_code}"
        yield ""
        yield "It held: nothing lost, nothing twice." if self.held else "IT DID NOT HOLD."
