"""ARCHITECTURE's table of tasks and the runbook's of components, against a daemon with everything switched on."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway import settings
from gateway.daemon.app import Gateway
from gateway.observability.notify import Notify
from gateway.tasks import TaskGuard
from tests.support.minimal import MINIMAL

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| (`[^|]+`) \| (.+?) \| .+ \| .+ \|$", re.MULTILINE)
IN_THE_SOURCE = re.compile(r"(?:start\(|create_task\(.+, name=)\"([a-z-]+)\"")
WITH_ALL = """
[spool]
folder = "{folder}"
[dead_letters]
keep = "30d"
[watchdog]
hung = "30s"
"""


def documented() -> dict[str, str]:
    """Name of a task to where it is made, as the table says."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    table = text.partition("\n## Tasks\n")[2].partition("\n## ")[0]
    return {name: made for names, made in ROW.findall(table) for name in re.findall(r"`([^`]+)`", names)}


async def the_daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """Tasks that it starts, whose connections have a number, and components."""
    names: set[str] = set()

    def start(_guard: TaskGuard, name: str, work: Coroutine[Any, Any, None]) -> None:
        work.close()
        names.add(name)

    monkeypatch.setattr(TaskGuard, "start", start)
    file = tmp_path / "gateway.toml"
    file.write_text(MINIMAL + WITH_ALL.format(folder=tmp_path / "spool"))
    with Notify() as notify:
        daemon = Gateway(settings.load(file), notify)
        daemon._start()
    tasks = {re.sub(r"live/writer-\d", "live/writer-N", name) for name in names}
    return tasks, set(daemon.health.as_dict()["components"])


def literal() -> set[str]:
    """Names that stand in the source as they are."""
    sources = (path for room in ("daemon", "ingest") for path in (ROOT / "gateway" / room).glob("*.py"))
    texts = [path.read_text("utf-8") for path in (*sources, ROOT / "gateway" / "tasks.py")]
    return {name for text in texts for name in IN_THE_SOURCE.findall(text)}


async def test_the_table_has_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that a debugger shows, and none that is gone."""
    started, _ = await the_daemons(tmp_path, monkeypatch)
    assert {"source", "live/writer-N", "spool/drain"} <= started
    assert set(documented()) == started | literal() | {"worker-N"}


def test_tasks_are_made_where_the_table_says() -> None:
    """The file that a row names, or the one above it, holds the name; a number and the path's name are put in there."""
    file, elsewhere = "", []
    for name, made in documented().items():
        found = re.search(r"`(gateway/\S+\.py)`", made)
        file = found[1] if found else file
        own = re.escape(name.rpartition("/")[2])
        wanted = re.sub(r"(?:0|N)$", r"\\{", own)
        if not re.search(rf'["/]{wanted}', (ROOT / file).read_text("utf-8")):
            elsewhere.append((name, file))
    assert elsewhere == []


async def test_the_runbook_knows_every_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `/ready` may name, and nothing that is gone."""
    _, components = await the_daemons(tmp_path, monkeypatch)
    page = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    table = page.partition("\n## By component of /ready\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    made_by_its_task = {"books"}
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == components | made_by_its_task
