"""Names in SQL."""

from __future__ import annotations


def quoted(name: str) -> str:
    """The name as an SQL identifier, whatever it is made of."""
    return '"' + name.replace('"', '""') + '"'
