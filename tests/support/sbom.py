"""A software bill of materials of the daemon, from its lock: CycloneDX 1.6, JSON. ``make sbom`` writes it.

Nothing but the lock and the version goes into it, no time and no chance: the same lock makes the same bytes.

Source: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from gateway import __version__

ROOT = Path(__file__).parents[2]
NAME = "mqtt-timescale-gateway"
_BLOCK = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+) \\\n((?:    .*\n?)+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    #(?: via)?[ ]+(\S.*)$", re.MULTILINE)


def sbom(lock: str) -> dict[str, Any]:
    """The bill of what this lock pins, with what requires what."""
    blocks = _BLOCK.findall(lock)
    refs = {name: f"pkg:pypi/{name}@{version}" for name, version, _ in blocks}
    root = f"pkg:pypi/{NAME}@{__version__}"
    needs: dict[str, list[str]] = {root: [], **{ref: [] for ref in refs.values()}}
    for name, _, rest in blocks:
        for asking in _askers(rest):
            needs[refs.get(asking, root)].append(refs[name])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, root + lock)}",
        "version": 1,
        "metadata": {"component": {**_component(NAME, __version__, "application"), **_LICENSE}},
        "components": [
            {**_component(name, version, "library"), "hashes": _hashes(rest)}
            for name, version, rest in blocks
        ],
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(needs[ref]))} for ref in sorted(needs)],
    }


_LICENSE = {"licenses": [{"license": {"id": "Apache-2.0"}}]}


def _component(name: str, version: str, kind: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _hashes(block: str) -> list[dict[str, str]]:
    """Of every file that may be installed for this version."""
    return [{"alg": "SHA-256", "content": found} for found in sorted(set(_HASH.findall(block)))]


def _askers(block: str) -> list[str]:
    """Names behind ``# via``; what is no pinned name is the project itself."""
    return [name for name in _VIA.findall(block) if name != "via"]


if __name__ == "__main__":
    json.dump(sbom((ROOT / "requirements.lock").read_text("utf-8")), sys.stdout, indent=2)
    sys.stdout.write("\n")
