"""The disk spool: it takes over while the database is away, and survives what happens to processes and disks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.spool import inspection
from tests.conftest import lacking
from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.fault_commit import LossyCommits
from tests.support.fault_disk import UNPRIVILEGED, NoDiskError, SmallFolder
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

SECONDS = 30 if ALL else 5
KILLS = 25 if ALL else 3
LOSSES = 100 if ALL else 20
DAY = int(os.environ.get("GATEWAY_FAULTS_DAY") or (20_000_000 if ALL else 60_000))
"""Messages of an edge box in a day: one each second from 230 devices."""
LIVE = 500
READ_AHEAD = 25_000
"""More messages than the drain takes into memory before it must wait for the database."""
SMALL_SEGMENTS = {"spool": {"after": "500ms", "segment_bytes": "64KiB"}}


def with_spool(make_cell: MakeCell, fault: str, folder: Path | None = None) -> FaultCell:
    """A cell whose daemon has a spool, of small segments."""
    cell = make_cell(fault, SMALL_SEGMENTS)
    cell.daemon.configure({"spool": {"folder": folder or cell.daemon.folder / "spool"}})
    return cell


def folder_of(cell: FaultCell) -> Path:
    """Where the spool is."""
    return Path(cell.daemon.settings["spool"]["folder"])


def spools(cell: FaultCell, more: int = 1000) -> None:
    """Wait until so many more messages are acknowledged because they are on disk."""
    wanted = cell.daemon.total()["spooled"] + more
    eventually(lambda: cell.daemon.total()["spooled"] >= wanted, timeout=30, what=f"{wanted} spooled")


def emptied(cell: FaultCell) -> None:
    """All that was spooled has come to its end, and nothing is left in the folder."""
    assert list(folder_of(cell).glob("*.segment")) == []


# the database is away ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "suspend"])
def test_it_takes_over(make_cell: MakeCell, how: str) -> None:
    """Acknowledged by the spool while the database is dead, or hangs and commits later what was given up."""
    what = {"kill": "kill -9", "suspend": "hangs"}[how]
    cell = with_spool(make_cell, f"spool: PostgreSQL {what}, {SECONDS} s")
    cell.start()
    cell.stored(500)
    getattr(cell.server, how)()
    spools(cell)
    cell.lasts(SECONDS)
    cell.recovers(cell.server.start if how == "kill" else cell.server.resume)
    cell.prove()
    emptied(cell)


@pytest.mark.combinations(2)
def test_commits_lose_their_answers(make_cell: MakeCell) -> None:
    """What may have been committed and is spooled for that meets itself when it is drained."""
    cell = with_spool(make_cell, f"spool: answer to COMMIT lost, {LOSSES} times")
    cell.daemon.configure({"spool": {"after": "50ms"}})
    with LossyCommits(cell.server.port, cell.chance) as proxy:
        cell.by_way_of(database=proxy)
        cell.start()
        cell.stored(500)
        proxy.share = 0.4
        eventually(lambda: proxy.lost.total() >= LOSSES, timeout=240, what=f"{LOSSES} commits lost")
        cell.recovers(lambda: setattr(proxy, "share", 0.0))
        cell.prove()
    assert cell.watch.ended("spooled") > 0
    emptied(cell)


def test_the_daemon_is_killed(make_cell: MakeCell) -> None:
    """Killed (-9) again and again while it spools, and while it drains."""
    cell = with_spool(make_cell, f"spool: daemon kill -9, {2 * KILLS} times while it spools and drains")
    cell.start()
    cell.stored(500)
    cell.server.stop()
    spools(cell)
    kill(cell)
    cell.server.start()
    kill(cell)
    cell.recovers(lambda: None)
    cell.prove()
    emptied(cell)


def kill(cell: FaultCell) -> None:
    """Kill the daemon at random moments; each time it is started again at once."""
    for _ in range(KILLS):
        cell.daemon.kill()
        cell.daemon.launch()
        cell.lasts(cell.chance.uniform(0.2, 2.0))
    eventually(cell.daemon.status, timeout=20, what="the daemon runs")


def test_an_unknown_device(make_cell: MakeCell) -> None:
    """The metadata database is away: messages of devices that are not in the cache are spooled, no dead letters."""
    cell = with_spool(make_cell, f"spool: metadata database away at start, {SECONDS} s")
    with Proxy(cell.server.port) as proxy:
        cell.by_way_of(metadata=proxy)
        cell.subscribe()
        proxy.refusing = True
        cell.daemon.launch()
        cell.publish(rate=1000)
        cell.unready("metadata", state="waiting")
        spools(cell)
        cell.lasts(SECONDS)
        assert cell.databases.count("dead_letters") == 0
        cell.recovers(lambda: setattr(proxy, "refusing", False))
        cell.prove()
    emptied(cell)


# what happens to files ------------------------------------------------------------------------


def spooled_and_dead(cell: FaultCell) -> Path:
    """The database is away, the daemon was killed, and much is in the spool: its folder."""
    cell.start()
    cell.stored(500)
    cell.server.stop()
    spools(cell, 3000)
    cell.daemon.kill()
    return folder_of(cell)


def go_on(cell: FaultCell, *, lost: int = 0) -> None:
    """The daemon and the database come back, and all that can be is drained."""
    cell.daemon.launch()
    eventually(cell.daemon.status, timeout=20, what="the daemon runs")
    cell.recovers(cell.server.start)
    cell.prove(lost=lost)
    emptied(cell)


def test_a_torn_tail(make_cell: MakeCell) -> None:
    """Half a record at the end, as a crash leaves it: cut off; its message was never acknowledged."""
    cell = with_spool(make_cell, "spool: torn tail")
    newest = sorted(spooled_and_dead(cell).glob("*.segment"))[-1]
    with newest.open("ab") as segment:
        segment.write((300).to_bytes(4, "little") + cell.chance.randbytes(120))
    go_on(cell)
    assert cell.logged("spool recovered")[-1]["torn_bytes"] > 0


def test_a_flipped_bit(make_cell: MakeCell) -> None:
    """A disk that lies costs the record it lies about: told, and its bytes set aside; all others are stored."""
    cell = with_spool(make_cell, "spool: flipped bit")
    folder = spooled_and_dead(cell)
    oldest = sorted(folder.glob("*.segment"))[0]
    content = bytearray(oldest.read_bytes())
    at = cell.chance.randrange(len(content) // 4, len(content) // 2)
    content[at] ^= 1 << cell.chance.randrange(8)
    oldest.write_bytes(content)
    cell.notes.append("the damaged record, its bytes set aside")
    go_on(cell, lost=1)
    assert [line["segment"] for line in cell.logged("spool damaged")] == [oldest.name]
    assert (folder / f"{oldest.name}.corrupt").exists()


def test_a_segment_is_deleted(make_cell: MakeCell, tmp_path: Path) -> None:
    """A segment deleted by hand under a running daemon costs its records, told by number; the others are stored."""
    cell = with_spool(make_cell, "spool: segment deleted by hand")
    cell.start()
    cell.stored(500)
    cell.server.stop()
    spools(cell)
    cell.publish(rate=5000)
    spools(cell, READ_AHEAD)
    victim = sorted(folder_of(cell).glob("*.segment"))[-4]
    shutil.move(victim, tmp_path)
    gone = sum(1 for _ in inspection.read(tmp_path))
    cell.recovers(cell.server.start)
    cell.notes.append(f"the {gone} records of the deleted file")
    cell.prove(lost=gone)
    (told,) = cell.logged("spool segment missing")
    assert (told["segment"], told["records"]) == (victim.name, gone)
    emptied(cell)


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[SmallFolder]:
    """A file system of its own that can be full, or read-only."""
    try:
        with SmallFolder(tmp_path / "spool") as folder:
            yield folder
    except NoDiskError as missing:
        lacking("mount", str(missing))


def fails(cell: FaultCell, breaks: Callable[[], object], words: str, mends: Callable[[], object]) -> None:
    """The disk fails while the database is away: nothing is acknowledged that is not on disk; then it is mended."""
    cell.start()
    cell.stored(500)
    cell.server.stop()
    spools(cell)
    breaks()
    cell.unready("spool", words, state="failed")
    cell.lasts(SECONDS)
    mends()
    spools(cell)
    cell.recovers(cell.server.start)
    cell.prove()
    emptied(cell)


def test_the_disk_is_full(make_cell: MakeCell, small_folder: SmallFolder) -> None:
    """Nothing is acknowledged that is not on disk: unready, saying why; with room again, it goes on by itself."""
    cell = with_spool(make_cell, f"spool: disk full, {SECONDS} s", small_folder.folder)
    fails(cell, small_folder.fill, "No space left on device", small_folder.empty)


def test_the_folder_is_read_only(make_cell: MakeCell) -> None:
    """Nothing is acknowledged that is not on disk: unready, saying why; writable again, it goes on by itself."""
    cell = with_spool(make_cell, f"spool: folder read-only, {SECONDS} s")
    cell.daemon.prefix = UNPRIVILEGED if os.geteuid() == 0 else ()
    folder = folder_of(cell)
    fails(cell, lambda: folder.chmod(0o500), "Permission denied", lambda: folder.chmod(0o700))


def test_it_is_full(make_cell: MakeCell) -> None:
    """``spool.max_bytes`` is reached: reading stops, the broker keeps the rest; the spool is drained, all is stored."""
    cell = with_spool(make_cell, f"spool: spool.max_bytes reached, for {SECONDS} s")
    cell.daemon.configure({"spool": {"max_bytes": "1MiB"}, "buffer": {"max_bytes": "1MiB"}})
    cell.start(rate=3000)
    cell.stored(500)
    cell.server.stop()
    cell.unready("spool", "the spool is full", state="failed")
    cell.lasts(SECONDS)
    assert cell.daemon.status()["figures"]["reconnects"] == 0
    cell.recovers(cell.server.start)
    cell.prove()
    emptied(cell)


# by volume ----------------------------------------------------------------------------------------


def test_a_day_without_an_uplink(make_cell: MakeCell) -> None:
    """As much as an edge box gathers in a day goes to the disk, and is drained beside live traffic."""
    cell = make_cell(f"spool: edge box: {DAY:,} messages without an uplink".replace(",", " "))
    folder = cell.daemon.folder / "spool"
    cell.daemon.configure({"spool": {"folder": folder, "max_bytes": "64GiB"}})
    cell.start_long_ago()
    cell.stored(500)
    cell.server.stop()
    cell.publish(count=DAY, timeout=4 * 3600)
    cell.published(early=False)
    eventually(lambda: not cell.daemon.total()["in_flight"], timeout=60, what="all is on disk")
    disk = sum(file.stat().st_size for file in folder.iterdir())
    cell.publish(rate=LIVE)
    started = time.monotonic()
    cell.recovers(cell.server.start)
    eventually(lambda: drained(cell), timeout=max(60, DAY / 2000), every=0.1, what="the spool is empty")
    took = time.monotonic() - started
    assert cell.load.running
    memory = cell.watch.peak_memory
    cell.notes += [f"{disk / 2**20:.0f} MiB on disk", f"memory at most {memory / 2**20:.0f} MiB"]
    cell.notes.append(f"drained in {took:.0f} s beside {LIVE} messages/s")
    cell.prove()
    assert memory < 300 * 2**20
    emptied(cell)


def drained(cell: FaultCell) -> bool:
    """Nothing is left on disk."""
    return not list(folder_of(cell).glob("*.segment"))
