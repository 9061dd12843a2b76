"""The conservation law as people read it."""

from __future__ import annotations

from gateway.observability import equation

BOOK = {
    "received": 1000,
    "stored": 990,
    "duplicate": 1,
    "spooled": 0,
    "dead_lettered": 7,
    "ignored": 0,
    "in_flight": 2,
    "balance": 0,
}


def test_the_equation_comes_with_its_numbers() -> None:
    """The law in words, below it the numbers, each under its term, and that it holds."""
    assert equation.lines({"telemetry": BOOK}, BOOK) == [
        "          received = stored + duplicate + spooled + dead_lettered + ignored + in_flight",
        "telemetry     1000 =    990 +         1 +       0 +             7 +       0 +         2  holds",
    ]


def test_streams_are_added_up() -> None:
    """With several streams there is a total as well."""
    double = {term: 2 * count for term, count in BOOK.items()}
    lines = equation.lines({"a": BOOK, "b": BOOK}, double)
    assert [line.split()[:2] for line in lines[1:]] == [["a", "1000"], ["b", "1000"], ["total", "2000"]]


def test_a_violation_is_not_to_be_overlooked() -> None:
    """Where it does not hold, the line says so and by how much."""
    [_, line] = equation.lines({"telemetry": BOOK | {"received": 1003, "balance": 3}}, BOOK)
    assert line.endswith("DOES NOT HOLD: 3 unaccounted for")


def test_a_narrow_terminal_cuts_no_term() -> None:
    """What is wider than the terminal is broken between terms; every number stays beside its term."""
    large = {term: count * 123_457 for term, count in BOOK.items()}
    for width in (60, 80):
        lines = equation.lines({"telemetry": large, "b": large}, large, width)
        assert max(map(len, lines)) <= width
        assert lines[0] == "total: holds"
        text = " ".join(" ".join(lines).split())
        for term in equation._TERMS:
            assert text.count(f"{term} {large[term]}") == 3
    assert equation.lines({"t": BOOK}, BOOK, 200) == equation.lines({"t": BOOK}, BOOK)


def test_one_line_for_what_reads_lines() -> None:
    """All terms, and whether it holds."""
    said = equation.sentence(BOOK)
    assert said == (
        "received 1000 = stored 990 + duplicate 1 + spooled 0 + dead_lettered 7 + ignored 0 + in_flight 2  holds"
    )
