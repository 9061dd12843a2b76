"""The conservation law as people read it: one column a term, one line a stream, and whether it holds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from gateway.outcomes import Outcome

_TERMS = ("received", *(outcome.value for outcome in Outcome), "in_flight")
_OPERATORS = ("=", *("+" for _ in Outcome), "")

Book = Mapping[str, int]
"""Every term of the equation, and ``balance``: see :meth:`gateway.observability.status.StatusReport.books`."""
NOTHING: Book = dict.fromkeys((*_TERMS, "balance", "qos0"), 0)
"""The book of a stream that has received nothing yet."""


def lines(streams: Mapping[str, Book], total: Book, width: int | None = None) -> list[str]:
    """The equation in words, the numbers of each stream below it, and the total where there are several.

    Args:
        width: columns there are; where the table is wider, each book is an equation of its own, broken between terms,
            and the total comes first.
    """
    table = _table(dict(streams) if len(streams) == 1 else {**streams, "total": total})
    if width is None or max(map(len, table)) <= width:
        return table
    books = dict(streams) if len(streams) == 1 else {"total": total, **streams}
    return [line for name, book in books.items() for line in _broken(name, book, width)]


def sentence(book: Book) -> str:
    """The equation of one book on one line, with its verdict."""
    cells = [f"{term} {book[term]}" for term in _TERMS]
    terms = " ".join(f"{cell} {op}".rstrip() for cell, op in zip(cells, _OPERATORS, strict=True))
    return f"{terms}  {_verdict(book)}"


def _broken(name: str, book: Book, width: int) -> list[str]:
    cells = [f"{term}\u00a0{book[term]}" for term in _TERMS]
    terms = [f"{cell}\u00a0{op}".rstrip() for cell, op in zip(cells, _OPERATORS, strict=True)]
    filled = textwrap.wrap(
        " ".join(terms), width, initial_indent="  ", subsequent_indent="    ", break_long_words=False
    )
    return [f"{name}: {_verdict(book)}", *(line.replace("\u00a0", " ") for line in filled)]


def _verdict(book: Book) -> str:
    return "holds" if book["balance"] == 0 else f"DOES NOT HOLD: {book['balance']} unaccounted for"


def _table(books: Mapping[str, Book]) -> list[str]:
    names = max((len(name) for name in books), default=0)
    widths = [max(len(term), *(len(str(book[term])) for book in books.values())) for term in _TERMS]
    head = _line("", _TERMS, names, widths)
    return [head, *(_filled(name, book, names, widths) for name, book in books.items())]


def _filled(name: str, book: Book, names: int, widths: list[int]) -> str:
    return f"{_line(name, [str(book[term]) for term in _TERMS], names, widths)}  {_verdict(book)}"


def _line(name: str, cells: list[str] | tuple[str, ...], names: int, widths: list[int]) -> str:
    terms = zip(cells, widths, _OPERATORS, strict=True)
    return " ".join([name.ljust(names), *(f"{cell:>{width}} {op}".rstrip() for cell, width, op in terms)])
