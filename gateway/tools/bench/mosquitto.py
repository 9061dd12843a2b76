"""A mosquitto of the bench's own: no limits, nothing on disk."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.errors import StartError
from gateway.tools.demo import privileges
from gateway.tools.demo.broker import find_program
from gateway.tools.demo.part import Part
from gateway.tools.demo.ports import answers, free_port

_CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages {window}
# As many waiting as come; mosquitto's own default drops beyond 1000.
max_queued_messages 0
set_tcp_nodelay true
sys_interval 0
log_dest stderr
log_type error
log_type warning
"""


@dataclasses.dataclass(frozen=True, slots=True)
class BenchBroker:
    """A broker that runs, on a loopback port."""

    port: int
    part: Part


@contextlib.asynccontextmanager
async def running(folder: Path, *, window: int = 0) -> AsyncIterator[BenchBroker]:
    """A mosquitto for the block.

    Args:
        folder: what it writes goes there.
        window: messages on their way at once to a client; 0: as many as the client takes. Its own default is 20.

    Raises:
        StartError: it is not installed, or does not start.
    """
    program = find_program("mosquitto")
    if program is None:
        raise StartError("mosquitto is not on the PATH: install the package 'mosquitto'")
    port = free_port()
    broker = BenchBroker(port, Part("mosquitto", folder / f"mosquitto-{port}.log"))
    configuration = folder / f"mosquitto-{port}.conf"
    configuration.write_text(_CONFIGURATION.format(port=port, window=window), "utf-8")
    try:
        await broker.part.start([program, "-c", configuration], privileges.other_user(configuration, program))
        await broker.part.until(lambda: answers(broker.port), timeout=20)
        yield broker
    finally:
        await broker.part.stop()
