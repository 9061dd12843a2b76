"""The conservation law as people read it: one column a term, one line a stream, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.outcomes import Outcome

_TERMS = ("received", *(outcome.value for outcome in Outcome), "in_flight")
_OPERATORS = ("=", *("+" for _ in Outcome), "")

Book = Mapping[str, int]
"""Every term of the equation, and ``balance``: see :meth:`gateway.observability.status.Report.books`."""
NOTHING: Book = dict.fromkeys((*_TERMS, "balance", "qos0"), 0)
"""The book of somebody who received nothing yet."""


def lines(streams: Mapping[str, Book], total: Book) -> list[str]:
    """The equation in words, the numbers of each stream below it, and the total where there are several."""
    books = dict(streams) if len(streams) == 1 else {**streams, "total": total}
    names = max((len(name) for name in books), default=0)
    widths = [max(len(term), *(len(str(book[term])) for book in books.values())) for term in _TERMS]
    head = _line("", _TERMS, names, widths)
    return [head, *(_filled(name, book, names, widths) for name, book in books.items())]


def _filled(name: str, book: Book, names: int, widths: list[int]) -> str:
    verdict = "holds" if book["balance"] == 0 else f"DOES NOT HOLD: {book['balance']} unaccounted for"
    return f"{_line(name, [str(book[term]) for term in _TERMS], names, widths)}  {verdict}"


def _line(name: str, cells: list[str] | tuple[str, ...], names: int, widths: list[int]) -> str:
    terms = zip(cells, widths, _OPERATORS, strict=True)
    return " ".join([name.ljust(names), *(f"{cell:>{width}} {op}".rstrip() for cell, width, op in terms)])
