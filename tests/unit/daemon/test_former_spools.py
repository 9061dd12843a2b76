"""Spools that nothing drains after a change of ``--workers`` are named."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from gateway import settings
from gateway.daemon import former_spools
from tests.unit.spool.spooling import opened, record


async def test_only_what_holds_messages_and_is_of_nobody_is_named(tmp_path: Path) -> None:
    """One process after three workers: its own folder, an empty one and one that is gone are not worth a word."""
    for folder, records in ((tmp_path, 2), (tmp_path / "worker-0", 3), (tmp_path / "worker-1", 0)):
        spool = opened(folder)
        if records:
            await spool.append([record(number) for number in range(records)])
        spool.close()
    with capture_logs() as logs:
        former_spools.tell(settings.SpoolSettings(folder=tmp_path), [tmp_path])
    assert [(one["event"], one["folder"], one["records"]) for one in logs] == [
        ("spool left", str(tmp_path / "worker-0"), 3)
    ]


async def test_workers_name_what_one_process_left(tmp_path: Path) -> None:
    """The other way round."""
    spool = opened(tmp_path)
    await spool.append([record(1)])
    spool.close()
    with capture_logs() as logs:
        former_spools.tell(
            settings.SpoolSettings(folder=tmp_path), [tmp_path / "worker-0", tmp_path / "worker-1"]
        )
    assert [one["folder"] for one in logs] == [str(tmp_path)]
