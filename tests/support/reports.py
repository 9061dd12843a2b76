"""A report such as the daemon keeps, with numbers that are easy to check."""

from __future__ import annotations

from gateway.observability import metrics
from gateway.observability.health import Health
from gateway.observability.status import StatusReport
from gateway.outcomes import Outcome, Tally


def a_report(*, received: int = 10, in_flight: int = 2) -> StatusReport:
    """A stream with 5 stored, 1 duplicate and 2 dead letters; it balances by default."""
    tally = Tally()
    tally.received = received
    tally.settled |= {Outcome.STORED: 5, Outcome.DUPLICATE: 1, Outcome.DEAD_LETTERED: 2}
    return StatusReport(
        health=Health(),
        tallies={"telemetry": tally},
        in_flight=lambda: {"telemetry": in_flight},
        gauges={
            **metrics.path_gauges(
                backlog_messages=lambda: 2,
                backlog_bytes=lambda: 230,
                held_back=lambda: 0,
                reading_paused=lambda: 0,
                registry_entries=lambda: 7,
                registry_topics=lambda: 9,
                tasks=lambda: 5,
            ),
            **metrics.spool_gauges(records=lambda: 0, size_bytes=lambda: 0, max_bytes=1000),
        },
    )
