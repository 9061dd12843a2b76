"""``gateway`` commands in this process: the same frame, parsing and exit codes, without starting Python each time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from gateway import cli, errors
from gateway.cli import common


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def command(config: Path, *arguments: str) -> Done:
    """Run a command with this configuration; the gateway's own errors end as ``cli.main`` ends them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    result = CliRunner().invoke(cli.app, arguments, env={"GATEWAY_CONFIG": str(config)})
    root.handlers[:] = handlers  # those of the command write to its output, which is closed now
    root.setLevel(level)
    if isinstance(result.exception, errors.GatewayError):
        said = common.clean_lines(f"gateway: {result.exception}\n")
        return Done(cli.exit_code(result.exception), result.stdout, result.stderr + said)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)
