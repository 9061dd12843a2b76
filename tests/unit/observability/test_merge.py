"""The answers of several daemons as one."""

from __future__ import annotations

from typing import Any

from gateway.observability import equation, merge


def answer(stored: int, *, ready: bool = True) -> dict[str, Any]:
    """The status of a worker that stored so many messages."""
    book = {**equation.NOTHING, "received": stored, "stored": stored}
    return {
        "version": "1",
        "uptime_seconds": 5.0,
        "balanced": True,
        "total": book,
        "streams": {"telemetry": book},
        "drained": {},
        "rates": {"received": 2.5},
        "last_message_at": float(stored) or None,
        "dead_letters": {"telemetry": {"malformed": stored}} if stored else {},
        "ready": ready,
        "components": {"mqtt": {"state": "ready"}},
        "figures": {"rows": stored},
    }


def test_before_any_worker_answers_there_is_an_equation() -> None:
    """All zeros, which holds, and nobody is ready: what asks for it just then must not fail."""
    found = merge.statuses({"worker-0": None, "worker-1": None}, stopping=False)
    assert (found["ready"], found["total"]) == (False, dict(equation.NOTHING))
    assert equation.lines(found["streams"], found["total"])[-1].endswith("holds")


def test_counts_are_added_up() -> None:
    """Of all workers, and by stream."""
    found = merge.statuses({"worker-0": answer(3), "worker-1": answer(4)}, stopping=False)
    assert (found["ready"], found["total"]["stored"]) == (True, 7)
    assert found["streams"]["telemetry"]["received"] == 7
    assert found["figures"]["rows"] == 7
    assert (found["rates"], found["last_message_at"]) == ({"received": 5.0}, 4.0)
    assert found["dead_letters"] == {"telemetry": {"malformed": 7}}


def test_ready_when_all_are() -> None:
    """One that does not answer, or says that it is not ready, makes the whole unready."""
    assert not merge.statuses({"worker-0": answer(3), "worker-1": None}, stopping=False)["ready"]
    assert not merge.statuses({"worker-0": answer(3), "worker-1": answer(0, ready=False)}, stopping=False)[
        "ready"
    ]
