"""Checks of the repository itself: what would otherwise drift."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = {
    "requirements.lock": frozenset[str](),
    "requirements-demo.lock": frozenset({"demo"}),
    "requirements-dev.lock": frozenset({"demo", "dev"}),
}
MAY_SLEEP = {
    "tests/support/waiting.py": "waits for conditions, for all others",
    "tests/support/load.py": "a publisher that tries to connect again",
    "tests/support/innocent.py": "a device that publishes at a rate, and looks at the table at another",
    "tests/support/proxy.py": "delay is the fault that it makes",
    "tests/support/fault_cell.py": "a fault lasts for a stated time, and what must hold is checked all the while",
    "tests/contracts/test_sources_hostile.py": "a scripted broker that ends a connection somewhat later",
    "tests/contracts/test_sources_protocol.py": "a scripted broker that is slow, for the source's timeout",
    "tests/faults/test_daemon.py": "a random moment is what the fault is about",
}
LONGEST_FUNCTION = 50
LONGEST_MODULE = 400
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+) ", re.MULTILINE)
REGISTRY = re.compile(
    rb"pypi\.org|pythonhosted|//[^/\s]*pypi|--(extra-)?index-url|--find-links|--trusted-host", re.I
)
SECRET = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OLDEST = {"python_version": "3.11", "python_full_version": "3.11.0"}
"""For which the locks are made; what only it needs does no harm to newer ones."""
BUILD = {"editables"}
"""What the build backend asks for only when it is asked to build."""


def tracked(*patterns: str) -> list[Path]:
    """The repository's own files; all but ignored ones where git is not at hand."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in found.stdout.splitlines() if (path := ROOT / name).is_file()]


def modules() -> list[tuple[Path, ast.Module]]:
    """The product's modules, parsed."""
    return [(path, ast.parse(path.read_text("utf-8"))) for path in tracked("gateway/*.py", "migrations/*.py")]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions of a module, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def pins(lock: str) -> dict[str, str]:
    """Name to version of a lock file."""
    return dict(PINNED.findall((ROOT / lock).read_text("utf-8")))


def declared(extras: frozenset[str]) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras, for running and for building."""
    project = PROJECT["project"]
    optional = [text for extra in extras for text in project["optional-dependencies"][extra]]
    return list(map(Requirement, [*project["dependencies"], *optional, *PROJECT["build-system"]["requires"]]))


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_holds_what_the_project_declares(lock: str) -> None:
    """Every declared requirement is pinned, to a version that the declaration allows; else: make lock."""
    pinned = pins(lock)
    wanted = {canonicalize_name(r.name): r.specifier for r in declared(LOCKS[lock])}
    assert {
        name: pinned.get(name) for name in wanted if not wanted[name].contains(pinned.get(name, "0"))
    } == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_holds_no_more_than_is_needed(lock: str) -> None:
    """Every pin is declared, or required by another pin; else: make lock."""
    assert set(pins(lock)) - needed(declared(LOCKS[lock])) - BUILD == set()


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_complete(lock: str, python: str, machine: str) -> None:
    """Made with one Python, it holds what others need: nothing is resolved when it is installed; else: add it."""
    there = {**OLDEST, "python_version": python, "python_full_version": f"{python}.0"}
    there |= {"platform_machine": machine}
    assert needed(declared(LOCKS[lock]), there) - set(pins(lock)) == set()


def test_all_supported_pythons_are_looked_at() -> None:
    """The list here is the one that the project declares."""
    versions = [
        text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if ":: Python ::" in text
    ]
    assert tuple(versions) == PYTHONS


def needed(requirements: list[Requirement], there: Mapping[str, str] = OLDEST) -> set[str]:
    """Names of all these requirements and of what they require in turn, as installed here, for that Python."""
    seen: dict[str, set[str]] = {}
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({**there, "extra": extra}):
            continue
        new = {"", *requirement.extras} - seen.setdefault(name, set())
        seen[name] |= new
        for wanted in required_by(name) if new else []:
            waiting += [(Requirement(wanted), extra) for extra in new]
    return set(seen)


def required_by(name: str) -> list[str]:
    """What this package requires; nothing when it is not installed, which the callers notice themselves."""
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_is_hashed_and_names_no_address(lock: str) -> None:
    """Whatever registry serves it, only the locked files are accepted."""
    text = (ROOT / lock).read_text("utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", text, flags=re.IGNORECASE)[1:]
    assert [block.split("==")[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in text
    assert " /" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_all_locks_pin_the_same_versions(lock: str) -> None:
    """What is tested is what is shipped."""
    tested = pins("requirements-dev.lock")
    assert {name: tested.get(name) for name in pins(lock)} == pins(lock)


def test_no_file_names_a_registry_or_holds_a_key() -> None:
    """Registries are configured by whoever installs; keys are made by tests, and not kept."""
    here = Path(__file__)
    texts = {path: path.read_bytes() for path in tracked() if path != here}
    assert [path for path, text in texts.items() if REGISTRY.search(text) or SECRET.search(text)] == []


def test_functions_fit_on_a_screen() -> None:
    """One screen a function."""
    long = [
        f"{path.relative_to(ROOT)}:{found.lineno} {found.name}"
        for path, tree in modules()
        for found in functions(tree)
        if (found.end_lineno or 0) - found.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_modules_hold_one_idea() -> None:
    """No module of the product is longer than 400 lines."""
    lines = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path, _ in modules()}
    assert {path: count for path, count in lines.items() if count > LONGEST_MODULE} == {}


def test_every_test_states_its_promise() -> None:
    """Every test has a docstring that says what is promised."""
    silent = [
        f"{path.relative_to(ROOT)}::{found.name}"
        for path in tracked("tests/**/test_*.py", "tests/test_*.py")
        for found in functions(ast.parse(path.read_text("utf-8")))
        if found.name.startswith("test_") and not ast.get_docstring(found)
    ]
    assert silent == []


def test_nothing_sleeps_for_luck() -> None:
    """Tests wait for conditions with a deadline; only what waits for them may sleep.

    A sleep of a minute or more is work that lasts until it is cancelled; nobody waits for its end.
    """
    call = re.compile(r"\btime\.sleep\(|\basyncio\.sleep\((?!0[,)]|[6-9]\d\)|\d{3,}\))")
    lines = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked("tests/*.py")
        if str(path.relative_to(ROOT)) not in MAY_SLEEP and path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if call.search(line)
    ]
    assert lines == []


@pytest.mark.parametrize("script", [".ci/run", ".ci/environment"])
def test_scripts_are_executable(script: str) -> None:
    """What is called by its path has the run bit."""
    assert (ROOT / script).stat().st_mode & 0o111
