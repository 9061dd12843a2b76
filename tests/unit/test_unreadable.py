"""Messages that the MQTT room could not read whole."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.outcomes import Reason
from gateway.spool import records
from gateway.unreadable import fault, unreadable
from tests.support.batching import published


@pytest.mark.parametrize("reason", [Reason.BAD_PACKET, Reason.TOO_LARGE])
def test_what_is_wrong_survives_the_spool(reason: Reason) -> None:
    """A message spooled on its way to the dead letters is not taken for a good one when it is drained."""
    message = unreadable(b"t/\xff", b"{}", 7, duplicate=True, reason=reason, detail="why")
    kept: dict[str, Any] = {name: getattr(message, name) for name in message._fields}
    record = records.Record(**kept, stream="s", received_us=1, resumed=False, turn=1, identity=bytes(16))
    again = records.decode(records.encode(record))
    assert again is not None
    assert again.retain
    found = fault(again)
    assert found is not None
    assert (found.reason, found.detail) == (reason, "why")


def test_whole_messages_have_no_fault() -> None:
    """Whatever user properties they carry."""
    assert fault(published("t", b"", user_properties=[("gateway", "malformed_packet")])) is None
