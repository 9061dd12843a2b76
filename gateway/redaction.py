"""Keep secrets out of what people read: logs, error texts, ``gateway config show``.

A last net, not a licence: nothing should hand a secret to a log at all. It rather hides too much.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

HIDDEN = "***"
_SHORTEST = 8
"""Of a password of plain letters and digits: a shorter one may be a word of any text, and the patterns find it."""
_known: dict[str, None] = {}

_SECRET_KEY = re.compile(
    r"(password|passwd|pwd|secret|token|api_?key|private_?key|credential|authorization)s?$", re.I
)

# Greedy to the last @ of the word: a password may hold an @, : or / that nobody encoded.
_IN_URL = re.compile(r"(?P<kept>\w://[^\s:/@'\"<>]*:)[^\s'\"<>]+(?=@)")
_IN_ENCODED_URL = re.compile(r"(?P<kept>\w%3A%2F%2F[\w.~%-]*?%3A)[^\s'\"<>&]+(?=%40)", re.I)
_IN_PAIR = re.compile(
    r"(?P<kept>(?:password|passwd|pwd|secret|token|api_?key)[\"']?\s*(?:=|(?<=[\"']):|(?<=[\"']\s):)\s*)"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s&;,'\"]+)",
    re.I,
)


def know(secret: str) -> None:
    """Hide this secret wherever it stands, in any of the forms in which texts have it."""
    if len(secret) < 3 or (len(secret) < _SHORTEST and secret.isalnum()):
        return
    forms = {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    _known.update(dict.fromkeys(forms))


def is_secret(name: str) -> bool:
    """Whether a value so named is secret as a whole: ``password``, ``api_token``; not ``password_file``."""
    return _SECRET_KEY.search(name) is not None


def redact(text: str) -> str:
    """The text without passwords: known ones, and in URLs, URL-encoded URLs, ``password=…`` and ``"password": "…"``."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in (_IN_URL, _IN_ENCODED_URL, _IN_PAIR):
        text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
    return text
