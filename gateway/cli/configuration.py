"""Where the settings of a command come from: ``--config``, the usual places, the environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway import errors

if TYPE_CHECKING:
    from gateway import settings

_PLACES = (Path("config/gateway.toml"), Path("/etc/gateway/gateway.toml"))


def file_of(path: Path | None) -> Path | None:
    """The file of ``--config``, or the first of the usual places that has one; None: environment only."""
    return path or next((place for place in _PLACES if place.is_file()), None)


def load(path: Path | None) -> settings.Settings:
    """The settings, from ``--config`` or the usual places.

    Raises:
        ConfigurationError: naming the file and the mistake, or the places where there is no file.
    """
    from gateway import settings

    file = file_of(path)
    if file is None and not _in_environment():
        raise _nowhere()
    try:
        return settings.load(file)
    except errors.ConfigurationError as error:
        if file is not None:
            raise
        raise _beside_the_places(error) from error


def _in_environment() -> bool:
    from gateway import settings
    from gateway.settings import explain

    return bool(
        explain.in_environment(settings.Settings.model_fields, list(settings.options(settings.Settings)))
    )


def _nowhere() -> errors.ConfigurationError:
    return errors.ConfigurationError(
        f"no configuration: neither {_places(', ')} nor --config, GATEWAY_CONFIG or variables such as "
        "GATEWAY__MQTT__HOST; "
        f"`mkdir -p {_PLACES[0].parent} && gateway config sample > {_PLACES[0]}` makes one to start from"
    )


def _beside_the_places(error: errors.ConfigurationError) -> errors.ConfigurationError:
    """What is wrong with an environment that stands alone may be that a file is missing."""
    return errors.ConfigurationError(
        f"{error}\n  (there is neither {_places(' nor ')}; `gateway config sample` prints a file to start from)"
    )


def _places(between: str) -> str:
    return between.join(str(place.absolute()) for place in _PLACES)
