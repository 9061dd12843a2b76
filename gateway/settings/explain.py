"""What is wrong with the settings, in plain words."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic
from pydantic import SecretStr

from gateway.errors import ConfigurationError

_PREFIX = "GATEWAY__"
_ADDRESS = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?:[^@/\s]*@)?(?P<host>\[[^\]]*\]|[^:/\[\]\s]*)"
    r"(?::(?P<port>\d*))?(?P<rest>/\S*)?",
    re.IGNORECASE,
)
_CONTROL = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_LONGEST = 65_535
"""Bytes of an MQTT string."""
_SECURE = {"mqtts", "ssl", "tls", "wss"}
_REPLACED = {"mqtt.transport": ("mqtt.protocol", {"auto": "auto", "bulk": "5", "aiomqtt": "3.1.1"})}
"""Options of earlier versions: what took their place, and by which of its values."""


def explain(
    error: pydantic.ValidationError, path: Path | None, environment: Mapping[str, Any], known: Collection[str]
) -> str:
    """One line a mistake; values are not repeated, they may be secrets.

    Args:
        environment: the tree of what the environment sets.
        known: all options, ``mqtt.host``, to name the one that was meant.
    """
    found = [_mistake(one, environment, known) for one in error.errors(include_url=False)]
    of_file = [text for text, variables in found if not variables]
    places = [str(path or "environment")] if of_file or path is None else []
    if path is not None and len(of_file) < len(found):
        places.append("environment")
    lines = [f"{' and '.join(places)}: {len(found)} mistake(s)"]
    for text, variables in found:
        lines.append(f"  {text}" + (f" (from the environment: {', '.join(variables)})" if variables else ""))
    return "\n".join(lines)


def _mistake(found: Any, environment: Mapping[str, Any], known: Collection[str]) -> tuple[str, list[str]]:
    """What is wrong, and the variables that set it."""
    where = ".".join(str(part) for part in found["loc"])
    variables = list(_variables(found["loc"], environment))
    kind, text = found["type"], found["msg"].removeprefix("Value error, ")
    if kind == "missing":
        text = "is required and not given"
    elif where in _REPLACED:
        text = _replaced(where, found["input"], variables)
    elif kind == "extra_forbidden":
        text = f"there is no such option; {_meant(where, known)}`gateway config sample` shows all"
    return f"{where or 'settings'}: {text}", variables


def _replaced(where: str, value: Any, variables: list[str]) -> str:
    """What to write in place of an option of an earlier version: its value too, where it had one that it knew."""
    option, values = _REPLACED[where]
    now = [values[value]] if isinstance(value, str) and value in values else list(values.values())
    if variables == [_variable(where)]:
        lines = [f"{_variable(option)}={one}" for one in now]
    else:
        lines = [f'{option.rpartition(".")[2]} = "{one}"' for one in now]
    return f"is now {option}: write {' or '.join(lines)}"


def _meant(where: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(where, known, n=1, cutoff=0.75)
    return f"perhaps {near[0]} is meant; " if near else ""


def _variables(place: Iterable[Any], environment: Any) -> Iterator[str]:
    """The variables that set what stands at this place, or something in it."""
    path: list[str] = []
    for part in place:
        if not isinstance(environment, Mapping):
            break  # a list is set as a whole
        if part not in environment:
            return
        environment = environment[part]
        path.append(str(part))
    yield from _set_within(path, environment) if path else ()


def _variable(option: str) -> str:
    return _PREFIX + option.replace(".", "__").upper()


def _set_within(path: list[str], tree: Any) -> Iterator[str]:
    name = _variable(".".join(path))
    if not isinstance(tree, Mapping) or name in map(str.upper, os.environ):
        yield name
    else:
        for part, inner in tree.items():
            yield from _set_within([*path, part], inner)


def refuse_unknown_variables(sections: Collection[str], known: Iterable[str]) -> None:
    """A mistyped name in the environment would be overlooked: pydantic looks for the names it knows.

    Args:
        sections: all sections.
        known: all options, ``mqtt.host``.

    Raises:
        ConfigurationError: naming the variable, and what was meant or the sections there are.
    """
    meant = {_letters(name): _variable(name) for name in (*known, *sections)}
    for name, value in sorted(os.environ.items()):
        if not name.lower().startswith("gateway"):
            continue
        section = name.lower().removeprefix(_PREFIX.lower()).split("__")[0]
        if name.lower().startswith(_PREFIX.lower()) and section in sections:
            continue
        if (right := meant.get(_letters(name.lower().removeprefix("gateway")))) and not _is_link(name, value):
            raise ConfigurationError(
                f"environment: {name} sets nothing: write {right}, with two underscores each"
            )
        if name.lower().startswith(_PREFIX.lower()):
            raise ConfigurationError(
                f"environment: {name}: there is no section {section!r}; there are {', '.join(sections)}"
            )


def in_environment(sections: Collection[str], known: Iterable[str]) -> bool:
    """Whether the environment sets anything: others have variables too that begin with GATEWAY.

    Raises:
        ConfigurationError: one sets nothing as it is written, and is surely meant to.
    """
    refuse_unknown_variables(sections, known)
    return any(name.upper().startswith(_PREFIX) for name in os.environ)


def _letters(name: str) -> str:
    return re.sub(r"[._-]", "", name)


def _is_link(name: str, value: str) -> bool:
    """Kubernetes tells containers of a service ``gateway-mqtt`` by ``GATEWAY_MQTT_PORT=tcp://…``."""
    return name.endswith("_PORT") and "://" in value


def bare_host(text: str) -> str:
    """A host name or address, and nothing else.

    Raises:
        ValueError: there is more or less in it; says what to write where.
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        return text
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or not found["host"]:
        raise ValueError("write a host name or an address, and nothing else")
    host = found["host"].strip("[]")
    if text == host and "@" not in text:
        return text
    advice = [f"write the name or address alone: {host!r}"]
    if found["port"]:
        advice.append(f"port = {found['port']}")
    scheme = (found["scheme"] or "").lower()
    if scheme in _SECURE:
        advice.append("[mqtt.tls] for TLS")
    if scheme in ("ws", "wss"):
        advice.append(f"websocket_path = {found['rest'] or '/mqtt'!r}")
    if "@" in text:
        advice.append("username and password_file for the login")
    raise ValueError(", ".join(advice))


def check_text(value: object) -> None:
    """Whether a text, a path or a secret can be used as such; other values can.

    Raises:
        ValueError: it holds what no file's name, no MQTT string and no database may hold.
    """
    if isinstance(value, Path):
        bad = "\0" in str(value)
    elif isinstance(value, SecretStr):
        bad = _UNWRITABLE.search(value.get_secret_value()) is not None
    else:
        bad = isinstance(value, str) and _CONTROL.search(value) is not None
    if bad:
        raise ValueError("a control character in it, or bytes that are not UTF-8")
    if isinstance(value, str) and len(value.encode()) > _LONGEST:
        raise ValueError(f"more than {_LONGEST} bytes")
