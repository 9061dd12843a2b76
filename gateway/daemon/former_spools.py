"""Spools that an earlier set-up of this gateway left: with another number of workers, other folders are drained."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from gateway import errors, settings
from gateway.observability import events
from gateway.spool import inspection


def tell(options: settings.SpoolSettings, own: Collection[Path | None]) -> None:
    """Name each folder that holds messages and is not drained by one of its ``own`` daemons."""
    if options.folder is None:
        return
    for folder in inspection.folders(options.folder):
        if folder in own or not folder.is_dir():
            continue
        with contextlib.suppress(errors.UsageError):  # it cannot be read: `gateway spool status` says why
            if records := inspection.status(folder, options.max_bytes).records:
                events.spool_left(folder=str(folder), records=records)
