"""When a session of another client id is left: soon after its process was killed, and never while one has it."""

from __future__ import annotations

import itertools
import time

from gateway.daemon.former_sessions import Silence
from gateway.sessions.tracking import SessionState
from gateway.writer.session_store import Kept

OWN, OTHER = "gateway", "gateway-1"
FILTERS = ("tenants/#",)


def kept(client_id: str, at_us: int, *, in_use: bool = True, filters: tuple[str, ...] = FILTERS) -> Kept:
    """A session that was saved then."""
    return Kept(client_id, "gateway", SessionState(b"", at_us=at_us, in_use=in_use, filters=filters))


def looks_until_left(
    *, own_saves: bool = True, other_saves: bool = False, fails: int = 0, filters: tuple[str, ...] = FILTERS
) -> int | None:
    """How many looks it takes until the other session is left; None: it is not after a hundred.

    Args:
        fails: each look of this number fails.
    """
    silence, now_us = Silence([OWN]), int(time.time() * 1e6)
    for look in range(1, 101):
        if fails and look % fails == 0:
            silence.interrupted()
            continue
        own = kept(OWN, now_us + look * own_saves)
        other = kept(OTHER, now_us + look * other_saves, filters=filters)
        silence.look([own, other])
        assert not silence.is_left(own)
        if silence.is_left(other):
            return look
    return None


def test_a_killed_process() -> None:
    """Our own session is saved, the other is not: five looks at fifteen seconds."""
    assert looks_until_left() == 5


def test_a_process_that_runs() -> None:
    """However long it is beside us."""
    assert looks_until_left(other_saves=True) is None


def test_a_database_that_takes_no_writes() -> None:
    """Silence is no evidence while ours is not saved either, nor where looks fail in between."""
    assert looks_until_left(own_saves=False) is None
    assert looks_until_left(fails=3) is None


def test_nothing_to_collect() -> None:
    """A session without subscriptions is no concern."""
    assert looks_until_left(filters=()) is None


def test_given_up_or_of_long_ago() -> None:
    """At the first look: its process said so, or was silent for three minutes."""
    silence, now_us = Silence([OWN]), int(time.time() * 1e6)
    for at_us, in_use in itertools.product((now_us, now_us - 200_000_000), (True, False)):
        other = kept(OTHER, at_us, in_use=in_use)
        silence.look([kept(OWN, now_us), other])
        assert silence.is_left(other) == (not in_use or at_us < now_us)
