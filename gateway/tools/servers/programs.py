"""Programs of other packages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def find_program(name: str) -> Path | None:
    """A program on the PATH, or where Debian keeps servers."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which(name, path=path)
    return Path(found) if found else None
