"""Foreign text on its way to a terminal: names, topics, payloads, what servers answer, what files hold.

Such text can move the cursor, retitle the window, forge lines, or turn the reading direction around so that a name
shows as another. Here it becomes text that shows what it is: whatever is neither visible nor a space is written as an
escape, as Python and JSON write it. The one way out; the commands, the demo and console logs use it.
"""

from __future__ import annotations

import re
import unicodedata

_BLANK = re.compile("[\u115f\u1160\u2800\u3164\uffa0\U000e0100-\U000e01ef]")
"""Letters, a symbol and marks that show as nothing: the Hangul fillers, the empty braille pattern, variation selectors
of ideographs, in which text can be hidden."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey or hide.

    Escaped are C0, DEL and C1 controls, format characters (bidi controls, zero width, tags), line and paragraph
    separators, lone surrogates, and what Unicode does not assign or leaves to private use. Spaces of other languages
    stay. A backslash stays as it is: ``--json`` says exactly what is there.
    """
    if text.isprintable() and _BLANK.search(text) is None:
        return text
    return "".join(_escaped(character) for character in text)


def visible_lines(text: str) -> str:
    """The same for a text of several lines: newlines stay."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """JSON, written with the same characters escaped as JSON does it: another spelling of the same value."""
    if text.isprintable() and _BLANK.search(text) is None:
        return text
    return "".join(c if c == "\n" or not _hidden(c) else _json_escape(c) for c in text)


def _hidden(character: str) -> bool:
    if character.isprintable():
        return _BLANK.match(character) is not None
    return unicodedata.category(character) != "Zs"


def _escaped(character: str) -> str:
    if not _hidden(character):
        return character
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
