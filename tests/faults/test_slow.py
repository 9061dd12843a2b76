"""A database that is slower than the devices: memory stays bounded, and the broker keeps the rest."""

from __future__ import annotations

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

SECONDS = 40 if ALL else 12
COPY_SECONDS = 5.0
BOUND = 4 * 2**20
ALLOWED = 32 * 2**20
"""Resident memory over that of the daemon at work: what the bound is in Python, and the batches on their way."""
RATE = 8000


def test_every_copy_takes_five_seconds(make_cell: MakeCell) -> None:
    """Reading stops at ``buffer.max_bytes``, while pings go on; then all is stored."""
    cell = make_cell(
        f"COPY takes {COPY_SECONDS:g} s, for {SECONDS} s", {"buffer": {"max_bytes": BOUND}}, max_inflight=0
    )
    cell.start(rate=RATE)
    cell.stored(2000)
    usual = cell.watch.peak_memory
    cell.slow(COPY_SECONDS)
    eventually(
        lambda: cell.daemon.status()["figures"]["reading_paused"] == 1, timeout=30, what="reading stops"
    )
    cell.lasts(SECONDS)
    cell.published()
    cell.recovers(lambda: cell.slow(0))
    assert cell.daemon.status()["figures"]["reconnects"] == 0
    more = cell.watch.peak_memory - usual
    cell.notes.append(f"memory {usual / 2**20:.0f} + {more / 2**20:.0f} MiB")
    cell.prove()
    assert more < ALLOWED
