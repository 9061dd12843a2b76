"""Passwords of roles, each in a file ``<role>.password`` that only its owner may read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from gateway import errors

_ITERATIONS = 4096


def path(folder: Path, role: str) -> Path:
    """Where the password of a role is kept."""
    return folder / f"{role}.password"


def read(folder: Path, role: str) -> str | None:
    """The password in the file; None without a file.

    Raises:
        UsageError: the file cannot be read, or holds no password of printable ASCII.
    """
    file = path(folder, role)
    try:
        found = file.read_text("utf-8").split("\n", 1)[0].rstrip("\r")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UsageError(f"cannot read {file}: {error}") from error
    if not found or not (found.isascii() and found.isprintable()):
        raise errors.UsageError(f"{file}: a password of printable ASCII is expected on the first line")
    return found


def generate(folder: Path, role: str) -> str:
    """A new password, written to the file with mode 0600.

    Raises:
        UsageError: the file cannot be written.
    """
    password = secrets.token_urlsafe(32)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path(folder, role), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
    except OSError as error:
        raise errors.UsageError(f"cannot write {path(folder, role)}: {error.strerror}") from error
    return password


def scram_verifier(password: str) -> str:
    """What the server keeps of a password (RFC 5803): sent instead of it, so that no log ever shows it."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server = _hmac(salted, b"Server Key")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
