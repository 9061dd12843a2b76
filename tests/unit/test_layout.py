"""The house: rooms and floors as pyproject.toml declares them, and that what breaks them is seen."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support import tower

ROOT = Path(__file__).parents[2]
LINT = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
MOST_ROOMS = 25
MOST_FLOORS = 11


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package with the contracts, to break."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(house: Path) -> str:
    """What lint-imports says of a house that it refuses."""
    done = subprocess.run(LINT, cwd=house, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    return done.stdout + done.stderr


def test_a_forbidden_import_is_seen(house: Path) -> None:
    """One for each contract: upwards, beside, and to a library that only one room may know."""
    for room, line in {
        "writer": "from gateway.ingest import pipeline",
        "storage": "from gateway.spool import spool",
        "ingest": "from gateway import mqtt",
        "daemon": "import asyncpg",
        "devices": "import mqtt5",
        "observability": "import rich",
        "cli": "from gateway.tools.bench import session",
    }.items():
        (house / "gateway" / room / "intruder.py").write_text(f"{line}\n")
    said = lint(house)
    assert re.findall(r"^(.+) BROKEN", said, re.MULTILINE) == [
        "layers",
        "the path never imports mqtt",
        "MQTT libraries only under gateway.mqtt and gateway.tools",
        "asyncpg only under gateway.storage and gateway.tools",
        "typer and rich only under gateway.cli and gateway.tools",
    ]
    assert "gateway.writer.intruder -> gateway.ingest.pipeline" in said
    assert "gateway.storage.intruder -> gateway.spool.spool" in said
    assert "gateway.cli.intruder -> gateway.tools.bench.session" in said


def test_a_stray_module_is_seen(house: Path) -> None:
    """A file in the package's root, or a room, that no floor names."""
    (house / "gateway" / "leftovers.py").write_text("")
    assert "leftovers" in lint(house)


def test_no_room_stands_above_one_that_imports_it() -> None:
    """Rooms on floors, none in a circle; few enough of both to be kept in mind."""
    rooms = tower.imports()
    stands = tower.floors(rooms)
    assert len(rooms.keys() - {"__main__"}) <= MOST_ROOMS
    assert len(stands) <= MOST_FLOORS
    drawn = tower.drawing(stands, ROOT / "gateway")
    assert f"\n```\n{drawn}```\n" in (ROOT / "ARCHITECTURE.md").read_text("utf-8"), (
        f"ARCHITECTURE.md must show:\n{drawn}"
    )


def test_a_circle_is_named() -> None:
    """By its way from room to room."""
    with pytest.raises(ValueError, match=r"^b -> c -> b$"):
        tower.floors({"a": {"b"}, "b": {"c"}, "c": {"b"}})


def test_a_class_name_stands_once(house: Path) -> None:
    """In the package and in the tests' support together; one that stands twice is named with both its places."""
    package = ROOT / "gateway"
    assert standing_twice(package, ROOT / "tests" / "support") == {}
    (house / "gateway" / "spool" / "intruder.py").write_text("class Outer:\n    class Batch: ...\n")
    assert standing_twice(house / "gateway") == {"Batch": ["gateway/batches.py", "gateway/spool/intruder.py"]}


def standing_twice(*folders: Path) -> dict[str, list[str]]:
    """Names of classes, nested and private ones too, that stand in more than one place, with the files."""
    places = defaultdict(list)
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(file.relative_to(folder.parent)))
    return {name: files for name, files in places.items() if len(files) > 1}
