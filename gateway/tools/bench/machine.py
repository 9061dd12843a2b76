"""What the figures were measured on: without it they say nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.storage import engines
from gateway.tools.servers.programs import find_program

_SETTINGS = ("shared_buffers", "max_wal_size", "fsync", "synchronous_commit", "full_page_writes", "wal_level")


def describe() -> dict[str, Any]:
    """Of this machine."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
    }


async def versions(connection: Any) -> dict[str, Any]:
    """Of what takes part. ``mosquitto`` is the program here, which need not be the broker."""
    settings = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in _SETTINGS}
    return {
        "gateway": __version__,
        "python": platform.python_version(),
        "mosquitto": _mosquitto(),
        "database": (await engines.detect(connection)).describe(),
        "database_settings": settings,
    }


def _processor() -> str:
    found = re.search(
        r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8", "replace"), re.MULTILINE
    )
    return found[1] if found else platform.machine()


def _mosquitto() -> str | None:
    program = find_program("mosquitto")
    if program is None:
        return None
    said = subprocess.run([program, "-h"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    found = re.search(r"version (\S+)", said.stdout)
    return found[1] if found else None
