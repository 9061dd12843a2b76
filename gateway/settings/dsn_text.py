"""A DSN taken apart once, its password apart from the rest: ``postgresql://user:password@host:port/name?key=value``.

A password may stand there as it is, with any character in it, or percent-encoded. What is ambiguous is read so that
more is taken for the password, never less: what is left is shown.

Source: PostgreSQL documentation, 32.1.1 "Connection Strings".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from gateway.redaction import HIDDEN

_SCHEME = re.compile(r"postgres(?:ql)?://")
_OPTIONS = re.compile(r"[a-z_.]+=[^&]*(?:&[a-z_.]+=[^&]*)*")
_PORT = re.compile(r":\d*(?:[,/]|$)")
_SECRET_OPTIONS = re.compile(r"(^|&)((?:ssl)?password=)[^&]*")


@dataclass(frozen=True)
class Parts:
    """A DSN's parts; user and password decoded, hosts as written, the options of the query as text.

    ``repr`` does not show the password.

    Attributes:
        written: the password as it stands there.
    """

    scheme: str
    user: str | None
    password: str | None
    hosts: str
    name: str
    options: str
    written: str = ""

    def __repr__(self) -> str:
        return f"Parts({self.shown()})"

    @property
    def query(self) -> dict[str, str]:
        """The options; a + is a plus, as in libpq."""
        return dict(parse_qsl(self.options.replace("+", "%2B")))

    @property
    def login(self) -> str:
        """``user:password@``, encoded; empty without a user."""
        if self.user is None:
            return ""
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        return f"{quote(self.user, safe='')}{password}@"

    def secrets(self) -> list[str]:
        """Every password in it."""
        inside = [self.query.get(option) for option in ("password", "sslpassword")]
        return [secret for secret in (self.password, *inside) if secret]

    def spellings(self) -> list[str]:
        """Every password, as meant and as written. One that was not encoded may look encoded, and is repeated as is."""
        inside = [option.partition("=")[2] for option in re.findall(r"(?:ssl)?password=[^&]*", self.options)]
        return [secret for secret in (*self.secrets(), self.written, *inside) if secret]

    def shown(self) -> str:
        """The DSN for people to read."""
        login = "" if self.user is None else self.user + ("" if self.password is None else f":{HIDDEN}") + "@"
        options = _SECRET_OPTIONS.sub(rf"\g<1>\g<2>{HIDDEN}", self.options)
        name = f"/{self.name}" if self.name else ""
        return f"{self.scheme}{login}{self.hosts}{name}" + (f"?{options}" if options else "")


def split(text: str) -> Parts | None:
    """The parts of a DSN; None: this is none."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        return None
    login, rest = _login(text[scheme.end() :])
    address, _, options = rest.partition("?")
    hosts, _, name = address.partition("/")
    if login is None:
        return Parts(scheme[0], None, None, hosts, unquote(name), options)
    user, colon, password = login.partition(":")
    secret = unquote(password) if colon else None
    return Parts(scheme[0], unquote(user), secret, hosts, unquote(name), options, password)


def _login(text: str) -> tuple[str | None, str]:
    """What stands before the host, and the rest."""
    head, mark, options = text.partition("?")
    if mark and "@" in options and _within_password(head, options):
        login, _, rest = text.rpartition("@")
        return login, rest
    authority = head.partition("/")[0]
    # With a password the last @ ends it, slashes before it or not; without one, the name of the database may have an @.
    place = (head if ":" in authority.partition("@")[0] else authority).rfind("@")
    return (None, text) if place < 0 else (text[:place], text[place + 1 :])


def _within_password(head: str, options: str) -> bool:
    """Whether the question mark is one of the password's."""
    unfinished = "@" not in head and ":" in head and not _PORT.search(head)
    return unfinished or not _OPTIONS.fullmatch(options)
