"""The sockets under paho: dialled beforehand, with the TLS name that is configured, and a way to close them."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from paho.mqtt.client import Client as Paho


class RecordingSocket(ssl.SSLSocket):
    """Keeps the TLS error that paho makes a mere loss of the connection of."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As ever."""
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            assert isinstance(self.context, NamedContext)
            self.context.failure = error
            raise


class NamedContext(ssl.SSLContext):
    """Asks for the configured name, where paho would always ask for the host.

    Attributes:
        failure: the TLS error that ended the connection.
        socket: the last one made.
    """

    sslsocket_class = RecordingSocket
    server_name: str
    failure: ssl.SSLError | None = None
    socket: ssl.SSLSocket | None = None

    def wrap_socket(self, sock: Any, **options: Any) -> ssl.SSLSocket:  # type: ignore[override]
        """As paho asks, but for the name."""
        self.socket = super().wrap_socket(sock, **{**options, "server_hostname": self.server_name})
        return self.socket


class Sockets:
    """Gives paho the socket that is dialled for it, and remembers it.

    paho itself would try one address after the other, each for the whole time-out, and forgets to close its socket
    when a handshake fails or CONNACK does not come.

    Args:
        seconds: longest that paho may wait for a TLS or WebSocket handshake.
    """

    def __init__(self, paho: Paho, context: NamedContext | None, seconds: float) -> None:
        self._paho, self._context, self._seconds = paho, context, seconds
        self._opened: socket.socket | None = None
        paho._create_socket_connection = self._open  # type: ignore[method-assign]  # noqa: SLF001

    def dialled(self, made: socket.socket) -> None:
        """What paho gets when it asks for a connection."""
        made.settimeout(self._seconds)
        self._opened = made

    @property
    def failure(self) -> ssl.SSLError | None:
        """The TLS error that ended the connection."""
        return self._context.failure if self._context is not None else None

    def close(self) -> None:
        """Close all. Not from within paho's callbacks: it would wait for paho's own lock, for ever."""
        self._paho._sock_close()  # noqa: SLF001
        for opened in (self._opened, self._context.socket if self._context else None):
            if opened is not None:
                opened.close()

    def _open(self) -> socket.socket:
        """Called in paho's thread."""
        assert self._opened is not None
        return self._opened
