"""Who lives in the demo."""

from __future__ import annotations

from gateway.tools.demo import roster


def test_two_tenants_three_types_fifty_devices() -> None:
    """The demo is as large as its description says, and no two devices share a serial number."""
    assert {member.tenant.slug for member in roster.DEVICES} == {tenant.slug for tenant in roster.TENANTS}
    assert len({member.type.name for member in roster.DEVICES}) == 3
    assert len({member.serial for member in roster.DEVICES}) == len(roster.DEVICES) == 50


def test_the_ghost_is_nobody() -> None:
    """The unknown device is really unknown, and the worn motors really are motors."""
    motors = {member.serial for member in roster.DEVICES if member.type is roster.MOTOR}
    assert roster.GHOST not in {member.serial for member in roster.DEVICES}
    assert set(roster.WORN) <= motors
