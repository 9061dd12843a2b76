"""What sections of the settings are made of, and the sections that say how to reach a server."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from gateway import quantities, redaction
from gateway.errors import ConfigurationError
from gateway.settings import dsn_text, explain

T = TypeVar("T")

Seconds = Annotated[
    float,
    BeforeValidator(quantities.parse_duration),
    Field(ge=0, allow_inf_nan=False),
    AfterValidator(quantities.check_duration),
]
"""A duration in seconds; text with a unit is accepted: ``"20s"``, ``"10min"``, ``"5ms"``."""

Count = Annotated[int, AfterValidator(quantities.check_size)]
"""A whole number."""

Bytes = Annotated[Count, BeforeValidator(quantities.parse_size), Field(ge=0)]
"""A size in bytes; text with a unit is accepted: ``"64MiB"``."""

Moment = Annotated[dt.datetime, BeforeValidator(quantities.parse_moment)]
"""A moment; text and TOML's own dates are accepted: ``"2000-01-01"``, ``2000-01-01T00:00:00Z``; UTC without a zone."""


Host = Annotated[str, AfterValidator(explain.bare_host)]
"""A host name or an address, without scheme, port or path."""

_LONGEST_LINE = 2**16
"""Bytes of a password; what is named by mistake may have no end."""

SLOWEST_STATEMENT = 600.0
"""Seconds that a command waits for one statement at least."""


class Section(BaseModel):
    """A part of the settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _usable(cls, value: T) -> T:
        """Text that files, sockets and databases take: what none of them takes is a mistake of typing."""
        for part in value if isinstance(value, tuple) else (value,):
            explain.check_text(part)
        return value


class TlsSettings(Section):
    """TLS to the broker."""

    ca_file: Path | None = Field(
        None, examples=["/etc/gateway/ca.pem"], description="CA certificates (PEM); unset: the system's"
    )
    cert_file: Path | None = Field(
        None, examples=["/etc/gateway/gateway.pem"], description="client certificate (PEM)"
    )
    key_file: Path | None = Field(
        None, examples=["/etc/gateway/gateway.key"], description="key of the client certificate (PEM)"
    )
    server_name: str | None = Field(
        None, examples=["broker.example.org"], description="name in the broker's certificate; unset: host"
    )
    alpn: tuple[str, ...] = Field((), examples=[["mqtt"]], description="ALPN protocol names")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or none")
        return self


class MqttSettings(Section):
    """The broker, and how to talk to it."""

    host: Host = Field("127.0.0.1", description="broker host name or address")
    port: int = Field(1883, ge=1, le=65535, description="broker port; 8883 is customary with TLS")
    unix_socket: Path | None = Field(
        None, examples=["/run/mosquitto/mqtt.sock"], description="unix socket, instead of host and port"
    )
    client_id: str = Field(
        min_length=1, description="fixed client id: the session's name at the broker; one a daemon"
    )
    worker_of: str | None = Field(
        None,
        examples=["gateway"],
        description="mqtt.client_id of the gateway whose worker this is; --workers sets it",
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="version of MQTT; 'auto' tries 5 and falls back on 3.1.1"
    )
    websocket_path: str | None = Field(
        None, examples=["/mqtt"], description="connect by WebSocket at this path (MQTT 3.1.1 only)"
    )
    username: str | None = Field(None, examples=["gateway"], description="user name at the broker")
    password: SecretStr | None = Field(
        None, examples=["…"], description="password; rather set password_file or the environment"
    )
    password_file: Path | None = Field(
        None, examples=["/run/secrets/mqtt_password"], description="file holding the password (first line)"
    )
    keepalive: Seconds = Field(30, ge=1, le=65535, description="interval of keepalive pings")
    session_expiry: Seconds = Field(86_400, description="how long the broker keeps the session")
    receive_maximum: int = Field(65_535, ge=1, le=65535, description="most messages unacknowledged (MQTT 5)")
    max_packet_bytes: Bytes = Field(
        16 * 2**20, ge=2**10, le=2**28, description="largest packet accepted (MQTT 5)"
    )
    max_topic_bytes: Bytes = Field(
        1024, ge=64, le=65_535, description="longest topic; a message with a longer one becomes a dead letter"
    )
    max_property_bytes: Bytes = Field(
        4096, ge=64, description="most bytes of properties in one message (MQTT 5); likewise"
    )
    connect_timeout: Seconds = Field(10, description="time for TCP, TLS and CONNACK together")
    reconnect_min: Seconds = Field(
        0.2, description="first wait before the next attempt; doubles, with jitter"
    )
    reconnect_max: Seconds = Field(30, description="longest wait before the next attempt")
    refused_retry: Seconds = Field(30, description="wait after a refusal (credentials, certificates)")
    share_group: str | None = Field(
        None,
        examples=["gateways"],
        pattern=r"^[^/+#]+$",
        description="subscribe as $share/<group>/…, to divide messages among gateways",
    )
    tls: TlsSettings | None = Field(None, description="an empty section [mqtt.tls] switches TLS on")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.websocket_path is not None and self.protocol == "5":
            raise ValueError("websocket_path needs protocol = '3.1.1': WebSocket is not spoken with MQTT 5")
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self

    @property
    def gateway(self) -> str:
        """The client id that the gateway goes by, however many workers it has."""
        return self.worker_of or self.client_id

    def secret(self) -> str | None:
        """The password, from wherever it is configured.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        return _secret(self.password, self.password_file)


class DatabaseSettings(Section):
    """One logical database: its own DSN and pool."""

    dsn: SecretStr = Field(
        description="postgresql://user@host:port/name; leave the password to password_file, and to another host add "
        "?sslmode=verify-full&sslrootcert=<file>: anything less is warned of; host1:port,host2:port/name: the one that "
        "takes rows, or what target_session_attrs says (docs/databases.md)"
    )
    password_file: Path | None = Field(
        None, examples=["/run/secrets/writer_password"], description="file holding the password (first line)"
    )
    connect_timeout: Seconds = Field(
        10,
        description="time for one connection attempt; several hosts or addresses share it, at least 2 s each",
    )
    command_timeout: Seconds = Field(
        60, description="time for one statement, after which a server that hangs is left; 0: no limit"
    )

    @field_validator("dsn")
    @classmethod
    def _secrets_are_known(cls, dsn: SecretStr) -> SecretStr:
        parts = dsn_text.split(dsn.get_secret_value())
        for secret in parts.spellings() if parts else ():
            redaction.know(secret)
        return dsn

    def for_a_job(self) -> Self:
        """The same, with time for the slow statements of a command: one that is cut off never gets done."""
        limit = self.command_timeout and max(self.command_timeout, SLOWEST_STATEMENT)
        return self.model_copy(update={"command_timeout": limit})

    def secret(self) -> str | None:
        """The password, when it comes from a file.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        return _secret(None, self.password_file)


class DeadLettersSettings(Section):
    """How much of what could not become readings is kept."""

    max_payload_bytes: Bytes = Field(
        2**20,
        ge=1024,
        description="of a larger payload so much is kept, with its length and SHA-256, and it cannot be replayed; "
        "validation.max_payload_bytes or more keeps whole what could be stored later",
    )
    max_bytes_per_device: Bytes = Field(
        32 * 2**20,
        ge=2**20,
        description="dead letters of one device kept within an hour, some 50 000 small ones; what comes beyond is only "
        "counted",
    )
    max_bytes_unknown: Bytes = Field(
        64 * 2**20,
        ge=2**20,
        description="likewise of all devices of a tenant that are not in the registry together, and of what names no "
        "tenant that is, of a stream: names that were invented",
    )
    keep: Seconds = Field(90 * 86_400, description="older ones are deleted, at least a day; 0: none is")

    @model_validator(mode="after")
    def _a_day(self) -> Self:
        if 0 < self.keep < 86_400:
            raise ValueError("keep: at least a day ('1d'), or 0, which deletes none")
        return self


def _secret(value: SecretStr | None, file: Path | None) -> str | None:
    found = _read(value, file)
    if found is not None:
        redaction.know(found)
    return found


def _read(value: SecretStr | None, file: Path | None) -> str | None:
    if file is None:
        return value.get_secret_value() if value else None
    try:
        with file.open("rb") as opened:
            return opened.readline(_LONGEST_LINE).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} holds no password in UTF-8 on its first line") from error
