"""The settings tree. No I/O but reading the named files; a stage gets the section it needs, never the root.

Sources, the later wins: defaults, the TOML file, the environment (``GATEWAY__MQTT__HOST``). Unknown keys are
errors.
Every option's description is its manual: ``config/gateway.toml`` is generated from here.
"""

from __future__ import annotations

import datetime as dt
import tomllib
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self, get_args

import pydantic
from pydantic import (
    BaseModel,
    Field,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gateway import outcomes
from gateway.errors import ConfigurationError
from gateway.settings import explain
from gateway.settings.sections import (
    Bytes,
    Count,
    DatabaseSettings,
    DeadLettersSettings,
    Host,
    Moment,
    MqttSettings,
    Seconds,
    Section,
)
from gateway.topics import Template

NO_STREAM = "none"
"""Stands in the books for topics that match no stream: subscriptions of an earlier configuration, mostly."""

_RESERVED_NAMES = {
    NO_STREAM: "messages whose topic matches no stream are counted under it",
    "total": "the sum of all streams is shown under it",
}

_CAPTURES = frozenset({"tenant", "device"})
"""What a topic template may name."""


class DatabasesSettings(Section):
    """The logical databases; they may live in one cluster, and in one database."""

    metadata: DatabaseSettings = Field(description="tenants, device types, devices, policies")
    timeseries: DatabaseSettings = Field(description="telemetry, events, metrics, dead letters")


ENVELOPE_KEYS = frozenset({"metrics", "metadata", "serial_number", "message_id", "version"})
"""Keys of a reading that have a meaning of their own."""


class StreamSettings(Section):
    """A topic template, a decoder and a target. The first stream whose topic matches takes the message."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
        description="name, used in metrics and dead letters; 'none' and 'total' are taken",
    )
    topic: str = Field(
        min_length=1,
        description="topic template: {tenant} and {device} (serial number) take a level; + and # as in MQTT",
    )
    kind: Literal["telemetry", "ignore"] = Field("telemetry", description="'ignore': only count")
    decoder: str = Field("json", description="payload format")
    qos: int = Field(1, description="0 or 1; at 0 the broker cannot deliver again what a crash loses")
    tenant: str | None = Field(None, examples=["acme"], description="its tenant, where the topic names none")
    unknown_device: outcomes.UnknownDevice = Field(
        "dead_letter", description="what becomes of messages of devices that are not in the registry"
    )
    provision_type: str | None = Field(
        None, examples=["vibration_sensor"], description="device type given to provisioned devices"
    )
    time_keys: tuple[str, ...] = Field(
        ("ts", "timestamp", "time"),
        min_length=1,
        description="keys of a reading under which its time may stand: the first that is there and not null counts",
    )
    retained: outcomes.Retained = Field(
        "auto",
        description="retained replays: 'auto' stores those with a timestamp of their own, ignores the others",
    )
    message_id: str = Field(
        "payload",
        pattern=r"^(payload|off|property:.+)$",
        description="where a message's own id stands, to store it once: payload | property:<name> | off",
    )
    message_id_reused: outcomes.MessageIdReused = Field(
        "store",
        description="an id that comes again with another payload, as after a reboot: another message, or a dead letter",
    )
    on_conflict: outcomes.OnConflict = Field(
        "merge",
        description="the same device and time again: unite the fields (the newer wins), keep, replace",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.qos not in (0, 1):
            raise ValueError(
                f"stream {self.name}: qos = {self.qos} is refused; subscribe with qos = 1: the broker then "
                "delivers QoS 2 publications at least once, the gateway stores each once (README, promises)"
            )
        if (self.unknown_device == "provision") != (self.provision_type is not None):
            raise ValueError(
                f"stream {self.name}: unknown_device = 'provision' and provision_type go together"
            )
        for key in ENVELOPE_KEYS.intersection(self.time_keys):
            raise ValueError(f"stream {self.name}: time_keys: {key!r} means something else in a reading")
        try:
            captures = Template(self.topic).captures
        except ConfigurationError as error:
            raise ValueError(f"stream {self.name}: {error}") from error
        if unknown := sorted(captures - _CAPTURES):
            raise ValueError(
                f"stream {self.name}: topic {self.topic!r} has {{{unknown[0]}}}, which means nothing: {{tenant}} and "
                "{device} (the serial number) do; write + for a level that says nothing"
            )
        if self.kind == "telemetry" and self.tenant is None and "tenant" not in captures:
            raise ValueError(f"stream {self.name}: name the tenant: {{tenant}} in the topic, or tenant = '…'")
        return self


class ValidationSettings(Section):
    """What is believed of a payload, and of a device's clock."""

    max_payload_bytes: Bytes = Field(1 * 2**20, description="larger payloads become dead letters")
    max_depth: int = Field(32, ge=2, le=200, description="deepest nesting of a payload")
    max_readings: Count = Field(10_000, ge=1, description="most readings in one message")
    max_values: Count = Field(
        50_000, ge=1, description="most values in one message: each costs time to decode"
    )
    max_row_bytes: Bytes = Field(
        256 * 2**10,
        ge=1024,
        description="largest row that merging makes of several readings of one device and time; what would make it "
        "larger becomes a dead letter",
    )
    max_future_skew: Seconds = Field(600, description="a timestamp further ahead is 'in the future'")
    max_age: Seconds = Field(3650 * 86_400, description="a timestamp further back is 'too old'")
    min_time: Moment = Field(
        dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
        description="so is one before this moment, whatever max_age says: it counts from a device's start, or from an "
        "epoch that is not 1970",
    )
    max_days: Count = Field(
        366,
        ge=1,
        description="most UTC days that the readings of one message fall on: each is a chunk, or a partition, to lock",
    )
    new_chunks_per_hour: Count = Field(
        30,
        ge=1,
        description="chunks that TimescaleDB makes for readings of one tenant, older than a week or further ahead, "
        "within an hour, at each gateway; messages that need more become dead letters, whose replay has no such limit",
    )
    on_future: outcomes.UnbelievableTime = Field(
        "reject", description="timestamps in the future: dead letter, use the receive time, or keep"
    )
    on_old: outcomes.UnbelievableTime = Field("reject", description="likewise for too old ones")
    naive_zone: str | None = Field(
        None, examples=["Europe/Berlin"], description="zone of times that name none; unset: refused"
    )

    @field_validator("naive_zone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is not None and name not in zoneinfo.available_timezones():
            raise ValueError(f"there is no zone {name!r} on this machine; write one like 'Europe/Berlin'")
        return name


class BatchSettings(Section):
    """When collected readings go to the database."""

    linger: Seconds = Field(0.005, description="longest wait for more messages while the socket is busy")
    max_rows: Count = Field(10_000, ge=1, description="most rows in one batch; a dead letter is one too")
    max_bytes: Bytes = Field(4 * 2**20, description="most bytes in one batch, as its rows go to the database")


class BufferSettings(Section):
    """Memory between source and database."""

    max_bytes: Bytes = Field(
        32 * 2**20, ge=2**20, description="bound of what is held in memory; then reading stops"
    )


class SpoolSettings(Section):
    """The disk spool: where messages go while the database is away or slow."""

    folder: Path | None = Field(
        None,
        examples=["/var/lib/gateway/spool"],
        description="a folder for it alone, on a lasting disk; unset: no spool",
    )
    after: Seconds = Field(2, description="how long messages wait for the database before they are spooled")
    max_bytes: Bytes = Field(2**30, ge=2**20, description="most bytes on disk; then reading stops")
    hold_back: Seconds = Field(
        3600,
        description="a spooled message that fails alone while others are stored is tried again for so long, then it "
        "becomes a dead letter",
    )
    segment_bytes: Bytes = Field(
        64 * 2**20, ge=2**16, le=2**31, description="size of one file; disk is freed by whole files"
    )

    @model_validator(mode="after")
    def _some_segments(self) -> Self:
        if self.segment_bytes > self.max_bytes // 2:
            raise ValueError("segment_bytes: at most half of max_bytes, or nothing is freed while it drains")
        return self


class WriterSettings(Section):
    """The connections that COPY."""

    connections: int = Field(2, ge=1, le=16, description="COPY connections; two overlap encoding and commit")
    retry_min: Seconds = Field(0.1, description="first wait after a transient error; doubles, with jitter")
    retry_max: Seconds = Field(5, description="longest wait after a transient error")
    standing_retry: Seconds = Field(5, description="wait after an error that an operator must mend")
    hold_back: Seconds = Field(
        10,
        description="a message that fails alone while others are stored is tried again for so long, then it becomes a "
        "dead letter; with a spool it waits there",
    )
    message_id_horizon: Seconds = Field(86_400, description="how long a message's own id is remembered")


class RegistrySettings(Section):
    """The cache of known devices."""

    max_entries: Count = Field(
        250_000, ge=100, description="devices kept in the cache, and likewise topics; the oldest leave first"
    )
    negative_ttl: Seconds = Field(30, ge=1, description="how long an unknown device is remembered as unknown")
    provisioned_per_hour: Count = Field(
        10_000,
        ge=1,
        description="devices that unknown_device = 'provision' enters for one tenant within an hour, by all gateways "
        "together; messages of those beyond become dead letters, which can be replayed",
    )


class ObservabilitySettings(Section):
    """Health, metrics and logs."""

    listen: Host = Field("127.0.0.1", description="address of /live, /ready, /status and /metrics")
    port: int = Field(9108, ge=0, le=65535, description="port of the same; 0: none is opened")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="'auto': console on a terminal, JSON otherwise"
    )


class WatchdogSettings(Section):
    """What the daemon watches of itself."""

    no_progress: Seconds = Field(
        60, gt=0, description="messages held, servers up and nothing settled for so long: unready, reconnect"
    )
    hung: Seconds | None = Field(
        None,
        ge=1,
        examples=["30s"],
        description="the event loop stands still for so long: the process ends, with a traceback, and is to be started "
        "again; unset: never (WatchdogSec of systemd does the same)",
    )
    dead_letter_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="a larger share of a stream's messages that become dead letters, over a minute, is warned of, and "
        "a detail of /ready; 1: never",
    )


class ShutdownSettings(Section):
    """How the daemon stops."""

    deadline: Seconds = Field(
        20, description="after SIGTERM: time to write what is held; the rest stays unacknowledged"
    )


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY__",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    mqtt: MqttSettings
    databases: DatabasesSettings
    streams: tuple[StreamSettings, ...] = Field(min_length=1)
    validation: ValidationSettings = ValidationSettings()
    batch: BatchSettings = BatchSettings()
    buffer: BufferSettings = BufferSettings()
    spool: SpoolSettings = SpoolSettings()
    writer: WriterSettings = WriterSettings()
    dead_letters: DeadLettersSettings = DeadLettersSettings()
    registry: RegistrySettings = RegistrySettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    watchdog: WatchdogSettings = WatchdogSettings()

    @model_validator(mode="after")
    def _own_names(self) -> Self:
        names = [stream.name for stream in self.streams]
        for name in filter(_RESERVED_NAMES.get, names):
            raise ValueError(
                f"a stream cannot be named {name!r}: {_RESERVED_NAMES[name]}; choose another name"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stream names must differ: {', '.join(twice)}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over what ``load`` read from the file."""
        return env_settings, init_settings


def load(path: Path | None) -> Settings:
    """Read the settings from a TOML file (may be None: environment only) and the environment.

    Raises:
        ConfigurationError: naming the file, the key and what is wrong with it.
    """
    known = list(options(Settings))
    explain.refuse_unknown_variables(Settings.model_fields, known)
    try:
        return Settings(**read_file(path))
    except pydantic.ValidationError as error:
        environment = EnvSettingsSource(Settings)()
        raise ConfigurationError(explain.explain(error, path, environment, known)) from error
    except (SettingsError, RecursionError) as error:
        raise ConfigurationError(
            f"environment: {error}: lists and whole sections are written there as JSON"
        ) from error


def options(section: type[BaseModel], path: str = "") -> Iterator[str]:
    """All options by their names in the tree, ``mqtt.host``; sections too, and lists as a whole."""
    for name, field in section.model_fields.items():
        yield f"{path}{name}"
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from options(kind, f"{path}{name}.")


def read_file(path: Path | None) -> dict[str, Any]:
    """The tree of a TOML file, unchecked; nothing without a file.

    Raises:
        ConfigurationError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8")) if path else {}
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
