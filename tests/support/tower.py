"""The package's first level as floors, from its imports.

`python -m tests.support.tower` draws what ARCHITECTURE shows.
"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp

Imports = Mapping[str, Iterable[str]]
"""Of each room, or file, in the package's first level: those that it imports."""


def imports() -> dict[str, set[str]]:
    """Who imports whom in the package's first level."""
    graph = grimp.build_graph("gateway")
    found: dict[str, set[str]] = {_room(child): set() for child in graph.find_children("gateway")}
    for module in graph.modules - {"gateway"}:
        for imported in graph.find_modules_directly_imported_by(module) - {"gateway"}:
            found[_room(module)].add(_room(imported))
    return {room: others - {room} for room, others in found.items()}


def _room(module: str) -> str:
    return module.split(".")[1]


def floors(rooms: Imports) -> list[list[str]]:
    """The ground floor first; each room stands one above the highest that it imports.

    Raises:
        ValueError: some import each other in a circle; the text names it.
    """
    way: list[str] = []

    @functools.cache
    def floor(room: str) -> int:
        if room in way:
            raise ValueError(" -> ".join([*way[way.index(room) :], room]))
        way.append(room)
        found = max((1 + floor(other) for other in sorted(rooms[room])), default=0)
        way.pop()
        return found

    tower: dict[int, list[str]] = defaultdict(list)
    for room in sorted(rooms):
        tower[floor(room)].append(room)
    return [tower[number] for number in range(len(tower))]


def drawing(tower: list[list[str]], package: Path) -> str:
    """One line a floor, the highest first; folders before files."""
    lines = []
    for number, rooms in reversed(list(enumerate(tower))):
        folders = [f"{room}/" for room in rooms if (package / room).is_dir()]
        files = [room for room in rooms if f"{room}/" not in folders]
        lines.append(f"{number:2}  {'  '.join([*folders, *files])}\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(drawing(floors(imports()), Path(__file__).parents[2] / "gateway"))
