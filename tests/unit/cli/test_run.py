"""``gateway run`` before it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.minimal import MINIMAL


def test_a_configuration_that_cannot_work_is_refused_at_once(tmp_path: Path) -> None:
    """Files and decoders that are not there: exit code 4 before any server is asked, a line a mistake."""
    file = tmp_path / "gateway.toml"
    missing = tmp_path / "password"
    text = MINIMAL.replace('decoder = "json"', 'decoder = "jsn"')
    file.write_text(text.replace('gateway_metadata"', f'gateway_metadata"\npassword_file = "{missing}"'))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "run", "--config", file],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert str(missing) in done.stderr
    assert "jsn" in done.stderr
    assert "Traceback" not in done.stderr
