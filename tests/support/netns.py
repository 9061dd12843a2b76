"""A second host of the tests' own: a network namespace, and a bad line to it.

The line is two TUN devices, one at each end; what one host sends is read here, and written to the other end after it
was lost, delayed or overtaken. So both ends run real TCP over a line that treats real packets badly, by a seed, on
kernels without netem too. A second, good line (veth) is for those who only want to look. Needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import secrets
import select
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_MTU = 1400
_PACKET = 65_536


class NoNetworkError(Exception):
    """Namespaces or TUN devices are not to be had here; the text says why."""


class BadLine:
    """A namespace, and the line to it; there while the ``with`` block lasts.

    Attributes:
        here, there: addresses of this host and of the other, joined by the bad line.
        aside: address of the other host on the good line.
        name: of the namespace.
        silent: every packet is lost, and no end is told.
        loss: share of the packets that are lost.
        delay: seconds that every packet takes, each way.
        overtaken: share of the packets that are held back for ``_LATE`` more, so that others overtake them.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        mark = secrets.token_hex(3)
        net = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(256)}"
        self.name = f"gateway-{mark}"
        self.here, self.there, self.aside = f"{net}.1", f"{net}.2", f"{net}.6"
        self._good_here = f"{net}.5"
        self._near, self._far, self._good = f"gwn{mark}", f"gwf{mark}", f"gwv{mark}"
        self.silent, self.loss, self.delay, self.overtaken = False, 0.0, 0.0, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="bad line")
        self._ends: list[int] = []

    def inside(self) -> list[str]:
        """What to put before a command so that it runs on the other host."""
        return ["ip", "netns", "exec", self.name]

    def __enter__(self) -> Self:
        try:
            self._ends = [_open_tun(self._near), _open_tun(self._far)]
            self._lay()
        except (OSError, subprocess.CalledProcessError) as error:
            self._remove()
            raise NoNetworkError(f"no network namespace with a TUN device: {error}") from error
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._remove()

    def _lay(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "set", self._far, "netns", self.name)
        _ip("link", "add", self._good, "type", "veth", "peer", "name", "good", "netns", self.name)
        lines = [
            ([], self._near, f"{self.here}/30"),
            ([], self._good, f"{self._good_here}/30"),
            (["-n", self.name], self._far, f"{self.there}/30"),
            (["-n", self.name], "good", f"{self.aside}/30"),
        ]
        for where, device, address in lines:
            _ip(*where, "addr", "add", address, "dev", device)
            _ip(*where, "link", "set", device, "up")
        for where, device in (([], self._near), (["-n", self.name], self._far)):
            _ip(*where, "link", "set", device, "mtu", str(_MTU))
        _ip("-n", self.name, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for end in self._ends:
            os.close(end)
        self._ends = []
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            _ip("netns", "del", self.name)

    def _carry(self) -> None:
        """Read packets at either end, and write them to the other when they are due."""
        due: list[tuple[float, int, int, bytes]] = []
        numbers = itertools.count()
        while not self._over.is_set():
            patience = min(0.05, due[0][0] - time.monotonic()) if due else 0.05
            for end in select.select(self._ends, [], [], max(patience, 0))[0]:
                packet = os.read(end, _PACKET)
                other = self._ends[1 - self._ends.index(end)]
                if not self._lost():
                    heapq.heappush(due, (time.monotonic() + self._takes(), next(numbers), other, packet))
            while due and due[0][0] <= time.monotonic():
                _, _, other, packet = heapq.heappop(due)
                with contextlib.suppress(BlockingIOError):  # a full queue loses packets, as elsewhere
                    os.write(other, packet)

    def _lost(self) -> bool:
        return self.silent or self._chance.random() < self.loss

    def _takes(self) -> float:
        return self.delay + (_LATE if self._chance.random() < self.overtaken else 0.0)


_LATE = 0.02
"""Seconds that an overtaken packet comes late: some packets' worth."""


def _open_tun(name: str) -> int:
    end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    except OSError:
        os.close(end)
        raise
    return end


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)
