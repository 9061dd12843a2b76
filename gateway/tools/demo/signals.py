"""What the simulated devices measure. Pure: the same seed and the same times give the same values.

Time runs fast: a day passes in two minutes, a bearing wears out in less, so that there is something to see.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from gateway.tools.demo import roster

Signal = Callable[[float], dict[str, Any]]
"""Metrics of a device at a time, in seconds since the demo began. Times must not go back."""

DAY = 120.0
"""Seconds of the demo that a simulated day takes."""
BEARING_LIFE = 110.0
"""Seconds until a worn bearing is replaced, and wears anew."""
_WORST = 12.0
"""Vibration, in mm/s, that a bearing gains over its life."""


def signal(member: roster.Member, seed: int) -> Signal:
    """The signal of a device."""
    dice = random.Random(f"{seed}/{member.serial}")  # noqa: S311 - noise, no secret
    makers = {roster.CLIMATE.name: climate, roster.MOTOR.name: motor, roster.DOOR.name: door}
    if member.serial in roster.WORN:
        return motor(dice, worn=True)
    return makers[member.type.name](dice)


def climate(dice: random.Random) -> Signal:
    """A daily curve of temperature with an offset of its own and drifting noise; warm air is drier."""
    offset, late = dice.gauss(0, 1.5), dice.uniform(-0.04, 0.04)
    drift = 0.0

    def measure(elapsed: float) -> dict[str, Any]:
        nonlocal drift
        drift = 0.97 * drift + dice.gauss(0, 0.05)
        temperature = 21 + offset + 5.5 * math.sin(2 * math.pi * (elapsed / DAY - late)) + drift
        humidity = 58 - 2.1 * (temperature - 21) + dice.gauss(0, 0.6)
        return {"temperature": round(temperature, 2), "humidity": round(min(max(humidity, 5), 98), 1)}

    return measure


def motor(dice: random.Random, *, worn: bool = False) -> Signal:
    """A steady hum; of a worn bearing it grows, slowly at first, and the bearing grows warm."""
    hum, warmth = dice.uniform(0.9, 1.7), dice.gauss(44, 2)

    def measure(elapsed: float) -> dict[str, Any]:
        wear = bearing_wear(elapsed) if worn else 0.0
        vibration = (hum + _WORST * wear) * (1 + dice.gauss(0, 0.04))
        temperature = warmth + 26 * wear + dice.gauss(0, 0.2)
        return {"vibration": round(max(vibration, 0.05), 3), "temperature": round(temperature, 1)}

    return measure


def bearing_wear(elapsed: float) -> float:
    """From 0, new, to 1, at the end of its life: a logistic curve."""
    age = elapsed % BEARING_LIFE
    return 1 / (1 + math.exp((0.45 * BEARING_LIFE - age) / (0.1 * BEARING_LIFE)))


def door(dice: random.Random) -> Signal:
    """Closed most of the time; opens for a few seconds. The battery fades."""
    charge = dice.uniform(2.9, 3.1)
    is_open, changes_at = False, dice.expovariate(1 / 8)

    def measure(elapsed: float) -> dict[str, Any]:
        nonlocal is_open, changes_at
        while elapsed >= changes_at:
            is_open = not is_open
            changes_at += 1 + dice.expovariate(1 / 3 if is_open else 1 / 12)
        return {"open": is_open, "battery": round(charge - elapsed * 1e-5, 3)}

    return measure
