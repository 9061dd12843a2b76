"""What a bench is asked to do."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path


class Scenario(enum.StrEnum):
    """What can be measured, in the order in which it is."""

    DRAIN = "drain"
    STEADY = "steady"
    LATENCY = "latency"
    SCALE = "scale"
    MEMORY = "memory"
    START = "start"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to measure, and how much of it.

    Attributes:
        messages: in a backlog.
        seconds: that a paced load lasts.
        rounds: of what is compared, by turns; medians are shown.
        devices: most of them, in the scenarios that are about their number.
        folder: what is written goes below it.
    """

    scenarios: tuple[Scenario, ...] = tuple(Scenario)
    messages: int = 1_000_000
    seconds: float = 30
    rounds: int = 3
    devices: int = 100_000
    seed: int = 1
    folder: Path = Path("/var/tmp")  # noqa: S108 - a folder of its own is made there

    def quick(self) -> BenchOptions:
        """The same, to see that it works: figures of so little are noise."""
        return dataclasses.replace(
            self, messages=min(self.messages, 20_000), seconds=min(self.seconds, 2), rounds=1,
            devices=min(self.devices, 5_000),
        )  # fmt: skip
