"""Where the gateway's code talks to a database, and which of these places a test has been through.

A place is a call of one of the driver's methods that send a statement, by file and line.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

SENDING = (
    "add_listener", "copy_records_to_table", "copy_to_table", "execute", "executemany", "fetch", "fetchrow", "fetchval",
)  # fmt: skip
PACKAGE = Path(sys.modules["gateway"].__path__[0])


@dataclass(frozen=True, order=True)
class CallSite:
    """A call that sends a statement."""

    file: str
    line: int
    last_line: int

    def __str__(self) -> str:
        return f"gateway/{self.file}:{self.line}"


def places(*left_out: str) -> list[CallSite]:
    """All of the package, but for files and folders of these names."""
    files = (file for file in sorted(PACKAGE.rglob("*.py")) if not _within(file, left_out))
    return [place for file in files for place in _places_of(file)]


def _within(file: Path, names: Sequence[str]) -> bool:
    path = file.relative_to(PACKAGE)
    return any(path.is_relative_to(name) for name in names)


def _places_of(file: Path) -> Iterator[CallSite]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDING:
            yield CallSite(str(file.relative_to(PACKAGE)), node.lineno, node.end_lineno or node.lineno)


@dataclass
class Seen:
    """What was sent.

    Attributes:
        texts: the statements.
        refused: place and text of what a role may not do.
    """

    lines: set[tuple[str, int]] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def missing(self, expected: Sequence[CallSite]) -> list[str]:
        """Those of the places that nothing went through."""
        return [str(place) for place in expected if not self._been_at(place)]

    def _been_at(self, place: CallSite) -> bool:
        return any((place.file, line) in self.lines for line in range(place.line, place.last_line + 1))

    def note(self, caller: Any, text: object) -> str:
        """Note that a statement is sent from here; where that is."""
        file = Path(caller.f_code.co_filename)
        if not file.is_relative_to(PACKAGE):
            return str(file)
        name = str(file.relative_to(PACKAGE))
        self.lines.add((name, caller.f_lineno))
        self.texts.add(str(text))
        return f"gateway/{name}:{caller.f_lineno}"


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Notes what is sent in the block, by whatever connection of this process."""
    seen = Seen()
    with monkeypatch.context() as patched:
        for name in SENDING:
            method = getattr(asyncpg.Connection, name)
            patched.setattr(asyncpg.Connection, name, _noting(method, seen))
        yield seen


def _noting(method: Any, seen: Seen) -> Any:
    def send(connection: Any, text: Any, *arguments: Any, **options: Any) -> Any:
        where = seen.note(sys._getframe(1), text)

        async def answer() -> Any:
            try:
                return await method(connection, text, *arguments, **options)
            except asyncpg.InsufficientPrivilegeError as error:
                seen.refused.append(f"{where}: {error}")
                raise

        return answer()

    return send
