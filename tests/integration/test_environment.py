"""What is locked is installed as locked, although the index has moved on: ``.ci/environment`` and the Dockerfile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import REQUIRED
from tests.support import package_index
from tests.support.package_index import make_wheel, pin

ROOT = Path(__file__).parents[2]
PIPS = "GATEWAY_TEST_PIPS"
"""Names a folder with wheels of pip, one a release to try (``pip download --no-deps pip==…``)."""
BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "project-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as archive:
        info = "project-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: project\\nVersion: 1.0\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "")
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of nothing but a lock, and the script under test."""
    folder = tmp_path / "project"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "environment", folder / ".ci")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


@pytest.fixture
def index(tmp_path: Path, project: Path) -> Iterator[str]:
    """An index which offers a newer release of everything that the project's lock pins.

    ``plugin`` asks for an extra of ``base``, as pytest-cov does of coverage.
    """
    locked, newer = tmp_path / "locked", tmp_path / "newer"
    locked.mkdir()
    newer.mkdir()
    wheels = [
        make_wheel(locked, "base", "1.0"),
        make_wheel(locked, "plugin", "1.0", ["base[more]>=1", 'old; python_version < "3.8"']),
    ]
    offered = [make_wheel(newer, "base", "2.0"), make_wheel(newer, "plugin", "2.0", ["base[more]>=2"])]
    (project / "lock").write_text("".join(map(pin, wheels)))
    with package_index.serving([*wheels, *offered], tmp_path / "index") as address:
        yield address


def environment(address: str) -> Mapping[str, str]:
    """Of a user whose pip asks this index alone, and has nothing in its cache."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return {**bare, "PIP_INDEX_URL": address, "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": os.devnull}


def run(command: Sequence[str | Path], folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return it with what it said."""
    return subprocess.run(
        list(map(str, command)),
        cwd=folder, env=environment(address), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def versions(python: Path) -> str:
    """What is installed there."""
    code = "import base, plugin; print(base.VERSION, plugin.VERSION)"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def pip_by(folder: Path, wheel: Path | None = None) -> Path:
    """A python without ensurepip, whose pip is of this wheel; of none: the one installed here."""
    others = folder / "others"
    if wheel:
        shutil.unpack_archive(wheel, others, "zip")
    program = folder / "python"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in *ensurepip*) exit 1;; esac\n'
        f'PYTHONPATH={others} exec {sys.executable} "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_what_is_locked_is_installed_as_locked(project: Path, index: str) -> None:
    """With the pip that Python brings: no newer release is taken, and none makes it fail."""
    base = os.path.realpath(sys.executable)
    done = run([".ci/environment", "made", "lock", base], project, index)
    assert (done.returncode, done.stderr) == (0, "")
    assert versions(project / "made" / "bin" / "python") == "1.0 1.0"


def pips() -> list[Path]:
    """Wheels of the releases of pip to try beside what is installed here."""
    return sorted(Path(os.environ.get(PIPS, "/nowhere")).glob("pip-*.whl"))


@pytest.mark.parametrize("pip", [None, *pips()], ids=lambda pip: pip.name if pip else "installed")
def test_any_pip_installs_what_is_locked(project: Path, index: str, pip: Path | None, tmp_path: Path) -> None:
    """An environment without a pip of its own, filled by one from outside, of releases 22 to 26."""
    program = pip_by(tmp_path, pip)
    done = run([".ci/environment", "made", "lock", program], project, index)
    assert (done.returncode, done.stderr) == (0, "")
    assert versions(project / "made" / "bin" / "python") == "1.0 1.0"


def test_releases_of_pip_are_tried_where_they_are_required() -> None:
    """A run that must try them all has them at hand: 22, 23, 24 and 25 beside the one that is locked."""
    if "pips" not in REQUIRED:
        pytest.skip(f"pips: set {PIPS} to a folder with wheels of pip")
    majors = {pip.name.removeprefix("pip-").partition(".")[0] for pip in pips()}
    assert majors >= {"22", "23", "24", "25"}


def test_a_lock_that_lacks_something_is_refused(project: Path, index: str, tmp_path: Path) -> None:
    """Pip is told to resolve nothing, so what is missing has to be found by the check, and named."""
    blocks = re.split(r"^(?=\w)", (project / "lock").read_text(), flags=re.MULTILINE)
    (project / "lock").write_text("".join(block for block in blocks if not block.startswith("base")))
    done = run([".ci/environment", "made", "lock", pip_by(tmp_path)], project, index)
    assert done.returncode != 0
    assert "plugin 1.0 requires base" in done.stdout + done.stderr


def test_a_file_that_is_not_the_locked_one_is_refused(project: Path, index: str, tmp_path: Path) -> None:
    """An index that serves other bytes under a locked version does not get them installed."""
    text = (project / "lock").read_text()
    (project / "lock").write_text(re.sub(r"sha256:\w+", "sha256:" + "0" * 64, text, count=1))
    done = run([".ci/environment", "made", "lock", pip_by(tmp_path)], project, index)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_the_image_installs_as_locked_too(project: Path, index: str) -> None:
    """The install command of the Dockerfile, run as it stands there but for its folders."""
    line = re.search(
        r"^RUN /opt/gateway/bin/(pip install .*requirements\.lock)$", (ROOT / "Dockerfile").read_text(), re.M
    )
    assert line is not None
    subprocess.run([sys.executable, "-m", "venv", project / "made"], check=True)
    words = line[1].replace("requirements.lock", "lock").split()
    done = run([project / "made" / "bin" / words[0], *words[1:]], project, index)
    assert done.returncode == 0, done.stderr
    assert versions(project / "made" / "bin" / "python") == "1.0 1.0"
