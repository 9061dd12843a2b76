"""Foreign text: nothing in it that a terminal obeys or hides, and everything else as it was."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import foreign
from tests.support.hostile import MARKUP, raw

ANY = st.text(st.characters(exclude_categories=()))
"""Lone surrogates too."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Pumpe 1, Süd, 泵, مضخة", "Pumpe 1, Süd, 泵, مضخة"),
        (MARKUP, MARKUP),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\x9b2J\x7f\x85", "\\x9b2J\\x7f\\x85"),
        ("x\u202egnp\u2066\u200f\u061c", "x\\u202egnp\\u2066\\u200f\\u061c"),
        ("\u2028\u200b\ufeff\xad", "\\u2028\\u200b\\ufeff\\xad"),
        ("\ud800\ue000\U000e0041", "\\ud800\\ue000\\U000e0041"),
        ("a\u3164b\u2800", "a\\u3164b\\u2800"),
        ("1\u202f000\u00a0kg", "1\u202f000\u00a0kg"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    """Controls, format characters, surrogates and blanks are escaped; letters and spaces of all languages stay."""
    assert foreign.visible(text) == shown


@example("\U000e0100")
@given(ANY)
def test_any_text_is_one_line_that_nothing_obeys(text: str) -> None:
    """Whatever it is; and it can be written to a file."""
    shown = foreign.visible(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert raw(shown) == []
    shown.encode()


@given(ANY, st.booleans())
def test_json_means_the_same(text: str, indented: bool) -> None:
    """Another spelling of the same value, with nothing raw in it but our newlines."""
    value = {text: [text]}
    spelled = foreign.visible_json(json.dumps(value, ensure_ascii=False, indent=2 if indented else None))
    assert json.loads(spelled) == json.loads(json.dumps(value))
    assert raw(spelled) == []


def test_lines_keep_their_newlines() -> None:
    """Ours; all else is escaped."""
    assert foreign.visible_lines("2 mistakes\n  line 1: \x1b[0m\n") == "2 mistakes\n  line 1: \\x1b[0m\n"
