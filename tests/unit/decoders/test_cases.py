"""Sample pairs: ``<name>.payload`` and what it decodes to, ``<name>.expected.json``. A new pair is found by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import decoders
from gateway.decoders import Limits
from gateway.errors import MessageError
from gateway.messages import Reading

CASES = Path(__file__).parents[2] / "cases" / "decoders"
PAYLOADS = sorted(CASES.glob("*/*.payload"))


def expected(payload: Path) -> dict[str, Any]:
    """``{"readings": […]}`` or ``{"reason": …}``."""
    found: dict[str, Any] = json.loads(payload.with_suffix(".expected.json").read_text("utf-8"))
    return found


def test_every_decoder_has_cases_of_both_kinds() -> None:
    """No decoder is without samples, some of which it must refuse; no half of a pair lies around."""
    assert PAYLOADS
    folders = {path for path in CASES.iterdir() if path.is_dir()}
    kinds = {
        folder: {key for path in folder.glob("*.payload") for key in expected(path)} for folder in folders
    }
    assert kinds == {CASES / name: {"readings", "reason"} for name in decoders._FORMATS}
    answers = {path.name.removesuffix(".expected.json") for path in CASES.glob("*/*.expected.json")}
    assert answers == {path.stem for path in PAYLOADS}


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_sample_decodes_to_what_stands_beside_it(payload: Path) -> None:
    """Every value, time and name as expected; or refused with the reason that is stated."""
    decode, stated = decoders.build(payload.parent.name, Limits()), expected(payload)
    if "reason" in stated:
        with pytest.raises(MessageError) as refused:
            decode(payload.read_bytes())
        assert stated["reason"] == refused.value.reason
        assert refused.value.detail
        return
    found = decode(payload.read_bytes())
    assert [msgspec.convert(reading, Reading) for reading in stated["readings"]] == found
    assert [kinds(reading["metrics"]) for reading in stated["readings"]] == [
        kinds(one.metrics) for one in found
    ]


def kinds(value: object) -> object:
    """The types of all values inside: 1, 1.0 and true are equal in Python, and are not the same reading."""
    if isinstance(value, dict):
        return {key: kinds(inner) for key, inner in value.items()}
    return [kinds(inner) for inner in value] if isinstance(value, list) else type(value)
