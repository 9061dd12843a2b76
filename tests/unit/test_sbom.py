"""The bill of materials: all that is locked, nothing else, the same every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.support.sbom import NAME, ROOT, sbom

LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def test_it_lists_what_is_locked() -> None:
    """Every pin with its version and the digests of its files; each is required by something, the project above all."""
    bill = sbom(LOCK)
    listed = {part["name"]: part["version"] for part in bill["components"]}
    assert listed == dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", LOCK, re.MULTILINE))
    assert [part["name"] for part in bill["components"] if not part["hashes"]] == []
    refs = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    edges = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    assert edges.keys() == refs
    required = {ref for wanted in edges.values() for ref in wanted}
    assert refs - required == {bill["metadata"]["component"]["bom-ref"]}
    assert f"pkg:pypi/asyncpg@{listed['asyncpg']}" in edges[bill["metadata"]["component"]["bom-ref"]]
    assert f"pkg:pypi/mako@{listed['mako']}" in edges[f"pkg:pypi/alembic@{listed['alembic']}"]


def test_the_same_lock_makes_the_same_bytes() -> None:
    """In another process too; another lock has another serial number."""
    command = [sys.executable, "-m", "tests.support.sbom"]
    one, other = (subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout for _ in range(2))
    assert one == other
    assert json.loads(one) == sbom(LOCK)
    assert sbom(LOCK + "\n")["serialNumber"] != sbom(LOCK)["serialNumber"]


def test_the_license_is_there_whole() -> None:
    """LICENSE is the Apache License 2.0, as the project's metadata says, and in what is shipped."""
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text.splitlines()) > 200
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert NAME in (ROOT / "pyproject.toml").read_text("utf-8")
    assert (ROOT / "SECURITY.md").is_file()
