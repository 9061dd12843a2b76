"""Password files and SCRAM verifiers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import errors
from gateway.storage import passwords


def test_a_generated_password_is_read_again(tmp_path: Path) -> None:
    """Each is another; none is overwritten."""
    first, second = (passwords.generate(tmp_path, role) for role in ("a", "b"))
    assert first != second
    assert len(first) >= 40
    assert passwords.read(tmp_path, "a") == first
    with pytest.raises(errors.UsageError, match=r"cannot write .*a\.password"):
        passwords.generate(tmp_path, "a")


def test_no_file_is_no_password(tmp_path: Path) -> None:
    """Which is not the same as an empty one."""
    assert passwords.read(tmp_path, "a") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"caf\xc3\xa9\n", b"\xff\n", b"a\tb\n"])
def test_only_printable_ascii_is_a_password(tmp_path: Path, content: bytes) -> None:
    """Anything else would need SASLprep on both sides; the text names the file, not its content."""
    passwords.path(tmp_path, "a").write_bytes(content)
    with pytest.raises(errors.UsageError, match=r"a\.password"):
        passwords.read(tmp_path, "a")


def test_verifiers_are_salted() -> None:
    """The same password twice gives two verifiers, of the form that PostgreSQL keeps."""
    first, second = (passwords.scram_verifier("secret") for _ in range(2))
    assert first != second
    assert first.startswith("SCRAM-SHA-256$4096:")
    assert "secret" not in first
