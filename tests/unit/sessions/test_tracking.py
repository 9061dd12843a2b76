"""What becomes of the session at the broker, as far as an operator is told."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import clock
from gateway.sessions.tracking import SessionState
from tests.support.sessions import MemoryStore, sessions_in

HOUR_US = 3_600_000_000


def lost(logs: list[Any]) -> list[float]:
    """How long ago each lost session was used, in seconds."""
    return [one["last_used_seconds"] for one in logs if one["event"] == "mqtt session lost"]


def noted_an_hour_ago() -> MemoryStore:
    """An earlier process has had a session."""
    return MemoryStore(SessionState(b"s" * 16, at_us=clock.now_us() - HOUR_US, filters=("tenants/#",)))


async def test_a_first_session_replaces_none() -> None:
    """A new installation has lost nothing, whichever comes first."""
    early, late = sessions_in(), sessions_in()
    with capture_logs() as logs:
        await early.look_up()
        early.begin()
        late.begin()
        await late.look_up()
    assert lost(logs) == []


@pytest.mark.parametrize("looked_up_first", [True, False])
async def test_a_broker_that_was_away_at_the_first_start_has_lost_nothing(*, looked_up_first: bool) -> None:
    """What is kept before the first connection, by this process or an earlier one, is no session at the broker."""
    store = MemoryStore()
    await sessions_in(store).save()
    later = sessions_in(store)
    with capture_logs() as logs:
        if looked_up_first:
            await later.save()
        later.begin()
        await later.look_up()
    assert lost(logs) == []


@pytest.mark.parametrize("looked_up_first", [True, False])
async def test_a_session_of_an_earlier_process_that_is_gone_is_told(*, looked_up_first: bool) -> None:
    """Once, also where the database answers only after the broker."""
    sessions = sessions_in(noted_an_hour_ago())
    with capture_logs() as logs:
        if looked_up_first:
            await sessions.look_up()
        sessions.begin()
        await sessions.look_up()
    assert lost(logs) == [pytest.approx(3600, abs=5)]


async def test_a_session_that_is_gone_at_a_reconnect_is_told_with_its_last_use() -> None:
    """The one of this process, saved a moment ago: not the earlier one again."""
    sessions = sessions_in(noted_an_hour_ago())
    sessions.begin()
    sessions.subscribing(["tenants/#"])
    await sessions.save()
    with capture_logs() as logs:
        sessions.begin()
    assert lost(logs) == [pytest.approx(0, abs=5)]


async def test_what_is_configured_no_more_is_stale_in_a_resumed_session_only() -> None:
    """A session that the broker had not holds no subscription of before."""
    store = MemoryStore(SessionState(b"s" * 16, at_us=1, filters=("a/+", "b/+")))
    resumed, anew = sessions_in(store), sessions_in(store)
    resumed.subscribing(["b/+", "c/+"])
    await resumed.look_up()
    assert await resumed.stale() == ["a/+"]
    assert resumed.filters == ["a/+", "b/+", "c/+"]
    resumed.unsubscribed(["a/+"])
    assert resumed.filters == ["b/+", "c/+"]
    anew.begin()
    anew.subscribing(["c/+"])
    await anew.look_up()
    assert anew.filters == ["c/+"]
