"""As whom a part runs, and that it does not outlive the tool that started it: what ``setpriv`` does."""

from __future__ import annotations

import dataclasses
import os
import pwd
import shutil
import signal
from pathlib import Path

from gateway.errors import StartError

_IF_CHILD_OF = ("sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')
"""A parent that died before ``setpriv`` asked for the signal never causes one: look whether it is still there."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunAs:
    """Another user, because PostgreSQL refuses to run as root.

    Attributes:
        override: keep CAP_DAC_OVERRIDE, for folders below one that is closed to others, such as ``/root``.
            The other way would be to open such folders, and they are not ours.
    """

    uid: int
    gid: int
    override: bool

    def arguments(self) -> list[str]:
        """Options for ``setpriv``."""
        change = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if not self.override:
            return change
        # Without no_setuid_fixup, access(2) knows no capabilities; PostgreSQL asks it about its own binary.
        keep = ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return [*change, *keep]


def other_user(home: Path, *programs: Path) -> RunAs | None:
    """Whom root runs servers as: the owner of what is there, else ``nobody``; None for an ordinary user."""
    if os.geteuid() != 0:
        return None
    there = home.stat() if home.exists() else None
    nobody = pwd.getpwnam("nobody")
    uid, gid = (there.st_uid, there.st_gid) if there and there.st_uid else (nobody.pw_uid, nobody.pw_gid)
    passed = {parent for path in (home, *programs) for parent in path.parents if parent.exists()}
    closed = any(not parent.stat().st_mode & 0o001 for parent in passed)
    return RunAs(uid, gid, override=closed)


def wrapper(run_as: RunAs | None, death_signal: signal.Signals) -> list[str]:
    """What goes before a command: it gets the signal when its parent dies, and runs as that user.

    Raises:
        StartError: another user is asked for, and ``setpriv`` is missing.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None and run_as is None:
        return []
    if setpriv is None:
        raise StartError(
            "root needs setpriv (package util-linux) to run the demo's servers as another user: install it, "
            "or run the demo as an ordinary user"
        )
    death = ["--pdeathsig", death_signal.name.removeprefix("SIG")]
    return [setpriv, *death, *(run_as.arguments() if run_as else []), *_IF_CHILD_OF, str(os.getpid())]
