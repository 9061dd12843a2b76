"""``gateway spool`` as an operator uses it, with and without a daemon beside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import command
from tests.support.minimal import MINIMAL, with_more
from tests.unit.spool.spooling import opened, record, rest, segments


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with a spool."""
    path = tmp_path / "gateway.toml"
    path.write_text(MINIMAL)
    folder = tmp_path / "spool"
    return with_more(path, f'\n[spool]\nfolder = "{folder}"\nmax_bytes = "1MiB"\nsegment_bytes = "64KiB"\n')


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Its spool, with 60 records in some segments."""
    spool = opened(tmp_path / "spool")
    for start in range(0, 60, 10):
        await spool.append([record(start + number) for number in range(10)])
    spool.close()
    return tmp_path / "spool"


def flip(path: Path, offset: int) -> None:
    """Damage a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_status_says_what_waits(file: Path, folder: Path) -> None:
    """Records, bytes, age and room, for people and for scripts."""
    done = command(file, "spool", "status", "--json")
    (shown,) = json.loads(done.stdout)
    assert done.returncode == 0
    assert shown["records"] == pytest.approx(60, abs=3)
    assert shown["segments"] == len(segments(folder))
    assert shown["size_bytes"] + shown["room_bytes"] == shown["max_bytes"] == 2**20
    assert shown["oldest_at"] == "2025-11-20T12:00:00+00:00"
    assert shown["newest_at"] == "2025-11-20T12:00:00.000059+00:00"
    table = command(file, "spool", "status").stdout
    assert "room bytes" in table
    assert "2025-11-20 12:00:00Z" in table


async def test_beside_a_daemon(file: Path, folder: Path) -> None:
    """Looking needs no lock and changes nothing; what is drained meanwhile is not missed."""
    daemon = opened(folder)
    before = {path: path.read_bytes() for path in segments(folder)}
    for verb in ("status", "verify", "export"):
        assert command(file, "spool", verb).returncode == 0
    assert before == {path: path.read_bytes() for path in segments(folder)}
    daemon.settle(rest(daemon)[1])
    assert json.loads(command(file, "spool", "status", "--json").stdout)[0]["records"] == 0
    daemon.close()


def test_verify_finds_the_damage(file: Path, folder: Path) -> None:
    """By file and offset, with exit code 1; a torn end of the newest segment is none."""
    assert command(file, "spool", "verify").returncode == 0
    first, *_, last = segments(folder)
    flip(first, first.stat().st_size // 2)
    last.write_bytes(last.read_bytes()[:-3])
    done = command(file, "spool", "verify")
    assert done.returncode == 1
    assert done.stdout.startswith(f"{first}: ")
    assert "58 records in" in done.stdout
    assert "1 damaged places" in done.stdout
    (shown,) = json.loads(command(file, "spool", "verify", "--json").stdout)
    assert shown["unfinished_bytes"] > 100
    assert shown["damage"][0]["file"] == first.name


async def test_export_prints_every_record(file: Path, folder: Path) -> None:
    """One JSON object a line; payloads that are no text as base64."""
    spool = opened(folder)
    await spool.append([record(60, b"\xff\x00")])
    spool.close()
    lines = [json.loads(line) for line in command(file, "spool", "export").stdout.splitlines()]
    assert [line["turn"] for line in lines] == list(range(61))
    assert lines[0]["payload"] == '{"temperature": 21.5}'
    assert lines[0]["received_at"] == "2025-11-20T12:00:00Z"
    assert lines[0]["user_properties"] == [["unit", "°C"]]
    assert lines[60]["payload_base64"] == "/wA="
    assert "payload" not in lines[60]


async def test_folders_of_workers(file: Path, folder: Path) -> None:
    """What a worker has spooled is shown, checked and exported too, also when there is no such worker any more."""
    worker = opened(folder / "worker-3")
    await worker.append([record(60)])
    worker.close()
    shown = json.loads(command(file, "spool", "status", "--json").stdout)
    assert [one["folder"] for one in shown] == [str(folder), str(folder / "worker-3")]
    assert shown[1]["records"] == 1
    assert shown[0]["unknown"] == []
    flip(segments(folder / "worker-3")[0], 0)
    done = command(file, "spool", "verify")
    assert (done.returncode, "worker-3/" in done.stdout) == (1, True)
    assert len(command(file, "spool", "export").stdout.splitlines()) == 61


def test_where_nothing_was_spooled_no_database_is_asked(tmp_path: Path, file: Path) -> None:
    """MINIMAL names databases that are not there; nothing but the answer is printed."""
    opened(tmp_path / "spool").close()
    opened(tmp_path / "spool" / "worker-0").close()
    done = command(file, "spool", "drain")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing was spooled\n", "")


def test_without_a_spool(tmp_path: Path, file: Path) -> None:
    """What is missing is said, with exit code 2."""
    bare = tmp_path / "bare.toml"
    bare.write_text(MINIMAL)
    assert "set spool.folder" in command(bare, "spool", "status").stderr
    done = command(file, "spool", "verify")
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr
