"""The path and the spool's, side by side."""

from __future__ import annotations

from pathlib import Path as FilePath

from gateway import settings
from gateway.ingest.assembly import IngestPath
from gateway.observability.health import Health
from tests.support.batching import settings_for


def test_no_two_tasks_have_one_name(tmp_path: FilePath) -> None:
    """A task that died is named: its name says of which path it is."""
    path = IngestPath(settings_for(None, spool=settings.SpoolSettings(folder=tmp_path / "spool")), Health())
    named = list(path.tasks())
    for _, work in named:
        work.close()
    names = [name for name, _ in named]
    assert len(set(names)) == len(names)
    assert {"live/writer-0", "spool/writer-0", "live/resolve", "spool/resolve"} <= set(names)
