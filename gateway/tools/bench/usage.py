"""What processes use, from /proc: CPU of a process with all its descendants, and its peak of memory.

Source: proc(5).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process, of its living descendants, and of those that it has waited for."""
    stats = dict(_stats())
    return sum(_used(stats[member]) for member in _family(pid, stats)) / _TICKS


def peak_bytes(pid: int) -> int:
    """The most memory that was ever resident (VmHWM)."""
    for line in (_PROC / str(pid) / "status").read_text("ascii", "replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def parent_of(pid: int, name: str) -> int | None:
    """The parent of a process of this name on this machine; None: the process is not here."""
    try:
        stat = _read(pid)
    except OSError:
        return None
    return _parent(stat) if (_PROC / str(pid) / "comm").read_text("ascii").strip() == name else None


class Meter:
    """CPU of some processes; None: it is not on this machine, or not to be seen."""

    def __init__(self, processes: Mapping[str, int | None]) -> None:
        self._processes = {name: pid for name, pid in processes.items() if pid is not None}

    def read(self) -> dict[str, float]:
        """Seconds used so far, by name."""
        return {name: cpu_seconds(pid) for name, pid in self._processes.items()}


def micros_per_message(
    before: Mapping[str, float], after: Mapping[str, float], count: int
) -> dict[str, float]:
    """µs of CPU per message, by name, of two readings of a meter."""
    return {name: (after[name] - before[name]) / count * 1e6 for name in after if name in before}


def _stats() -> Iterator[tuple[int, list[str]]]:
    for place in _PROC.iterdir():
        if place.name.isdigit():
            try:
                yield int(place.name), _read(int(place.name))
            except OSError:
                continue  # it ended meanwhile


def _read(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may hold spaces: state, ppid and so on."""
    return (_PROC / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()


def _parent(stat: list[str]) -> int:
    return int(stat[1])


def _used(stat: list[str]) -> int:
    """utime, stime, cutime and cstime, in ticks."""
    return sum(map(int, stat[11:15]))


def _family(pid: int, stats: Mapping[int, list[str]]) -> list[int]:
    if pid not in stats:
        return []
    children = [child for child, stat in stats.items() if _parent(stat) == pid]
    return [pid, *(member for child in children for member in _family(child, stats))]


def children_seconds() -> float:
    """User and system time of all our children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
