"""The path and the spool's, side by side."""

from __future__ import annotations

from pathlib import Path as FilePath

from gateway import settings
from tests.support.batching import settings_for
from tests.support.flow import Flow


async def test_no_two_tasks_have_one_name(tmp_path: FilePath) -> None:
    """A task that died is named: its name says of which path it is."""
    flow = Flow(settings_for(None, spool=settings.SpoolSettings(folder=tmp_path / "spool")))
    assert flow.spooled is not None
    names = [name for name, _ in (*flow.base.tasks, *flow.path.tasks, *flow.spooled.tasks)]
    assert len(set(names)) == len(names)
    assert {"live/writer-0", "spool/writer-0", "live/resolve", "spool/resolve"} <= set(names)
