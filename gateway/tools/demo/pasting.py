"""Commands to paste: they work where the demo was started, in this terminal or another."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.tools.demo.folder import DEFAULT, Folder

_QUERY = "SELECT time, device_id, data FROM telemetry ORDER BY time DESC LIMIT 5"


def program() -> list[str]:
    """How ``gateway`` was called."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [near(Path(sys.executable)), "-m", "gateway"]
    on_path = shutil.which(called.name)
    return [called.name] if on_path and Path(on_path).samefile(called) else [near(called)]


def near(path: Path) -> str:
    """A path as short as it can be written from here."""
    here = Path.cwd()
    return str(path.absolute().relative_to(here)) if path.absolute().is_relative_to(here) else str(path)


def beside(folder: Folder) -> list[str]:
    """Commands for another terminal, while the demo runs."""
    psql = shlex.join([*_demo(folder), "--serve", "psql"])
    return [psql, *_look(folder), shlex.join([*program(), "status", *_config(folder)])]


def serving(folder: Folder, psql: Path, environment: Mapping[str, str]) -> list[str]:
    """Commands for another terminal, while only the servers run."""
    options = {"-h": "PGHOST", "-p": "PGPORT", "-U": "PGUSER", "-d": "PGDATABASE"}
    arguments = [word for option, name in options.items() for word in (option, environment[name])]
    variable = f"PGPASSFILE={shlex.quote(environment['PGPASSFILE'])}"
    return [f"{variable} {shlex.join([near(psql), *arguments])}", *_look(folder)]


def afterwards(folder: Folder) -> list[str]:
    """Commands for when nothing runs any more; each brings the servers up, and down again."""
    serve = [*_demo(folder), "--serve"]
    return [
        shlex.join([*serve, "--", "psql", "-c", _QUERY]),
        shlex.join([*serve, "--", "gateway", "dead-letter", "list", "--limit", "10"]),
        shlex.join([*serve, "--", "gateway", "device", "list", "--tenant", "acme"]),
        f"{shlex.join(serve)}   # up until Ctrl-C",
    ]


def _look(folder: Folder) -> list[str]:
    commands = (["dead-letter", "list", "--limit", "10"], ["device", "list", "--tenant", "acme"])
    return [shlex.join([*program(), *command, *_config(folder)]) for command in commands]


def _config(folder: Folder) -> list[str]:
    return ["--config", near(folder.config)]


def _demo(folder: Folder) -> list[str]:
    place = [] if folder.path == DEFAULT.absolute() else ["--folder", near(folder.path)]
    return [*program(), "demo", *place]
