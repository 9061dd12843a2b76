"""Contract suites run on both event loops (uvloop in production, asyncio where there is none) and both sources."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

from gateway.settings import MqttSettings

Options = Callable[..., MqttSettings]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each asynchronous test on each loop."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["5", "3.1.1"])
def options(request: pytest.FixtureRequest) -> Options:
    """Settings of a source of either kind: impatient, with a client id of its own."""

    def make(port: int, **more: Any) -> MqttSettings:
        usual = {
            "port": port,
            "client_id": f"source-{secrets.token_hex(6)}",
            "protocol": request.param,
            "keepalive": 1,
            "reconnect_min": 0.02,
            "reconnect_max": 0.1,
            "refused_retry": 0.1,
            "connect_timeout": 5,
        }
        return MqttSettings(**{**usual, **more})

    return make
