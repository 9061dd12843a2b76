"""The answer to a commit gets lost: what was committed is not written again, and what was not is."""

from __future__ import annotations

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_commit import Loss, LossyCommits
from tests.support.waiting import eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.combinations(2)]

LOSSES = 200 if ALL else 40
SHARE = 0.3


def test_commits_lose_their_answers(make_cell: MakeCell) -> None:
    """Cut after COMMIT (or the end of COPY) is sent and before its reply, again and again: nothing lost or twice."""
    cell = make_cell(f"answer to COMMIT lost, {LOSSES} times")
    with LossyCommits(cell.server.port, cell.chance) as proxy:
        cell.by_way_of(database=proxy)
        cell.start()
        cell.stored(500)
        proxy.share = SHARE
        eventually(lambda: proxy.lost.total() >= LOSSES, timeout=240, what=f"{LOSSES} commits lost")
        assert set(proxy.lost) == set(Loss)
        cell.recovers(lambda: setattr(proxy, "share", 0.0))
        cell.notes.append(", ".join(f"{how} {number}" for how, number in sorted(proxy.lost.items())))
        cell.prove()
