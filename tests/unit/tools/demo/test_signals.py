"""What the simulated devices measure."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import pytest

from gateway.tools.demo import roster, signals

SECONDS = [n / 4 for n in range(480)]


def measured(serial: str, seed: int = 1) -> list[dict[str, Any]]:
    """A day of a device, four readings a second."""
    member = next(member for member in roster.DEVICES if member.serial == serial)
    signal = signals.signal(member, seed)
    return [signal(second) for second in SECONDS]


def values(serial: str, field: str) -> list[float]:
    """A day of a field."""
    return [metrics[field] for metrics in measured(serial)]


@pytest.mark.parametrize("member", roster.DEVICES, ids=lambda member: member.serial)
def test_the_same_seed_gives_the_same_values(member: roster.Member) -> None:
    """Whoever repeats a demo with its seed sees the same fleet; another seed is another fleet."""
    assert measured(member.serial, seed=7) == measured(member.serial, seed=7)
    assert measured(member.serial, seed=7) != measured(member.serial, seed=8)


@pytest.mark.parametrize("member", roster.DEVICES, ids=lambda member: member.serial)
def test_sends_the_fields_of_its_type(member: roster.Member) -> None:
    """Every reading has exactly the declared fields; none of a sound device is beyond its bounds."""
    for metrics in measured(member.serial):
        assert {field.name for field in member.type.fields} == metrics.keys()
        for field in member.type.fields:
            if field.minimum is not None and member.serial not in roster.WORN:
                assert field.maximum is not None
                assert field.minimum <= metrics[field.name] <= field.maximum


def test_air_is_driest_when_it_is_warmest() -> None:
    """Humidity runs against temperature, which swings over a day by more than its noise."""
    temperature, humidity = values("CLI-001", "temperature"), values("CLI-001", "humidity")
    assert statistics.correlation(temperature, humidity) < -0.9
    assert max(temperature) - min(temperature) > 8


def test_a_worn_bearing_shakes_more_and_more() -> None:
    """Over its life the vibration grows beyond the limit of its type; a sound one stays as it is."""
    end = int(signals.BEARING_LIFE * 4) - 20
    quarters = [
        statistics.fmean(values(roster.WORN[0], "vibration")[n : n + 20]) for n in range(0, end, end // 4)
    ]
    assert all(later > earlier for earlier, later in itertools.pairwise(quarters))
    assert max(values(roster.WORN[0], "vibration")) > 11.2
    assert max(values("MOT-001", "vibration")) < 3


def test_a_bearing_is_replaced_at_the_end_of_its_life() -> None:
    """A demo that runs for hours keeps showing developing faults."""
    assert signals.bearing_wear(0) == pytest.approx(signals.bearing_wear(signals.BEARING_LIFE))
    assert signals.bearing_wear(signals.BEARING_LIFE - 1) > 0.9


def test_gates_open_and_close() -> None:
    """Within a day each gate was open, but closed most of the time."""
    for member in roster.DEVICES:
        if member.type is roster.DOOR:
            opened = [bool(metrics["open"]) for metrics in measured(member.serial)]
            assert 0 < sum(opened) < len(opened) / 2
