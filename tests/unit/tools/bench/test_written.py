"""Settings handed to another process."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from gateway import settings
from gateway.tools.bench import written

GIVEN = settings.Settings.model_validate(
    {
        "mqtt": {"client_id": 'a "b"', "password": "s3cret", "keepalive": "1min", "tls": {"alpn": ["mqtt"]}},
        "databases": {"metadata": {"dsn": "postgresql://x@/m"}, "timeseries": {"dsn": "postgresql://x@/t"}},
        "streams": [
            {"name": "one", "topic": "t/{tenant}/{device}"},
            {"name": "two", "topic": "u/#", "tenant": "é"},
        ],
        "spool": {"folder": "/var/spool"},
    }
)


def test_settings_arrive_as_they_were(tmp_path: Path) -> None:
    """The file says everything, secrets too; only we can read it."""
    file = written.write_private(tmp_path / "gateway.toml", written.toml(GIVEN))
    assert settings.load(file) == GIVEN
    assert GIVEN.mqtt.password == SecretStr("s3cret")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_is_replaced(tmp_path: Path) -> None:
    """Whoever could read what was there, cannot read what comes."""
    place = tmp_path / "order.json"
    place.write_text("old", "utf-8")
    place.chmod(0o644)
    written.write_private(place, "new")
    assert (place.read_text("utf-8"), place.stat().st_mode & 0o777) == ("new", 0o600)
