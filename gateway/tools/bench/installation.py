"""Where a bench runs: an operator's installation, as it is configured, or servers of the bench's own."""

from __future__ import annotations

import dataclasses

from gateway import settings
from gateway.errors import UsageError
from gateway.tools.servers.part import Part


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchInstallation:
    """A broker and two databases.

    Attributes:
        configured: the settings of a gateway there.
        metadata: the database as the owner of its tables.
        timeseries: likewise.
        own: both were made for this bench alone.
        parts: servers that the bench started; when one of them ends, so does the bench.
        broker_pid: None: not known.
    """

    configured: settings.Settings
    metadata: settings.DatabaseSettings
    timeseries: settings.DatabaseSettings
    own: bool
    parts: tuple[Part, ...] = ()
    broker_pid: int | None = None

    def describe(self) -> str:
        """For people."""
        if self.own:
            return "servers of the bench's own: the broker with an open window and no limits"
        return "the configured broker and databases, as they are"


def configured(
    options: settings.Settings, metadata: settings.DatabaseSettings, timeseries: settings.DatabaseSettings
) -> BenchInstallation:
    """An operator's installation.

    Raises:
        UsageError: the bench does not speak what its broker is reached by.
    """
    if options.mqtt.websocket_path is not None or options.mqtt.protocol == "3.1.1":
        raise UsageError(
            "the bench speaks MQTT 5 over TCP, TLS or a unix socket; this broker is reached otherwise"
        )
    patient = {"command_timeout": 0}
    return BenchInstallation(
        configured=options,
        metadata=metadata.model_copy(update=patient),
        timeseries=timeseries.model_copy(update=patient),
        own=False,
    )
