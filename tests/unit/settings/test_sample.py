"""The annotated configuration file is the manual: complete, true, and never behind the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest

from gateway import settings
from gateway.settings.sample import MINIMAL, sample
from tests.support import minimal

COMMITTED = Path(__file__).parents[3] / "config" / "gateway.toml"


def without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree without sections in which nothing is set."""
    return {name: value for name, value in tree.items() if value != {}}


def test_the_committed_file_is_the_sample() -> None:
    """When this fails: `gateway config sample > config/gateway.toml`."""
    assert COMMITTED.read_text("utf-8") == sample()


def test_what_it_sets_is_the_minimal_configuration() -> None:
    """Nothing but the minimal configuration is set; all else is commented out."""
    assert without_empty(tomllib.loads(sample())) == MINIMAL == tomllib.loads(minimal.MINIMAL)


def test_it_loads(tmp_path: Path) -> None:
    """The file as it is starts a gateway with all defaults."""
    shortest = tmp_path / "minimal.toml"
    shortest.write_text(minimal.MINIMAL)
    assert settings.load(COMMITTED) == settings.load(shortest)


def uncommented() -> str:
    """The sample with every commented option that has a default switched on."""
    switched: list[str] = []
    example = False
    for line in sample().splitlines():
        option = re.fullmatch(r"# ([a-z_]+ = .+)", line)
        switched.append(option[1] if option and not example else line)
        example = line.startswith("#") and "[unset by default]" in line
    return "\n".join(switched)


def test_the_defaults_it_shows_are_true(tmp_path: Path) -> None:
    """To uncomment a default changes nothing."""
    path = tmp_path / "all.toml"
    path.write_text(uncommented())
    assert len(tomllib.loads(uncommented())["validation"]) > 3
    assert settings.load(path) == settings.load(COMMITTED)


EXAMPLES = re.findall(r"\[unset by default\]\n# ([a-z_]+ = .+)", sample())


@pytest.mark.parametrize("example", sorted(set(EXAMPLES)))
def test_the_examples_it_shows_are_accepted(example: str) -> None:
    """An example of what has no default is a value that its option accepts."""
    name, value = next(iter(tomllib.loads(example).items()))
    sections = (
        settings.MqttSettings,
        settings.TlsSettings,
        settings.DatabaseSettings,
        settings.StreamSettings,
        settings.ValidationSettings,
        settings.SpoolSettings,
        settings.WatchdogSettings,
    )
    fields = [section.model_fields[name] for section in sections if name in section.model_fields]
    assert fields
    for field in fields:
        option: Any = Annotated[field.annotation, field]
        pydantic.TypeAdapter(option).validate_python(value)


def test_every_option_is_explained() -> None:
    """No option is without a sentence above it."""
    lines = sample().splitlines()
    options = [place for place, line in enumerate(lines) if re.match(r"(# )?[a-z_]+ = ", line)]
    assert len(options) > 60
    assert [lines[place] for place in options if not lines[place - 1].startswith("# ")] == []
