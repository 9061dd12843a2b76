"""The trees of revisions: ``migrations/`` of the checkout, ``gateway/_migrations`` of an installed wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alembic.config import Config
from alembic.script import ScriptDirectory

import gateway
from gateway import errors

Name = Literal["metadata", "timeseries"]
NAMES: tuple[Name, ...] = ("metadata", "timeseries")


@dataclass(frozen=True)
class Revision:
    """One step of a tree."""

    id: str
    title: str


def config(name: Name) -> Config:
    """Alembic's configuration for one tree.

    Raises:
        StartError: this installation has no migrations.
    """
    trees = folder()
    made = Config()
    # ConfigParser would interpolate a % of the path.
    made.set_main_option("script_location", str(trees).replace("%", "%%"))
    made.set_main_option("version_locations", str(trees / name / "versions").replace("%", "%%"))
    made.set_main_option("path_separator", "newline")
    return made


def history(name: Name) -> list[Revision]:
    """All revisions of a tree, oldest first."""
    scripts = ScriptDirectory.from_config(config(name)).walk_revisions()
    return [Revision(script.revision, script.doc) for script in scripts][::-1]


def folder() -> Path:
    """Where the trees are.

    Raises:
        StartError: this installation has no migrations.
    """
    package = Path(gateway.__file__).parent
    for place in (package / "_migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise errors.StartError(f"no migrations beside {package}: install the gateway again")
