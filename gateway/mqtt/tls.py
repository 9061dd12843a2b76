"""TLS to the broker, and what went wrong in words by which an operator can mend it."""

from __future__ import annotations

import socket
import ssl
from typing import TypeVar

from gateway.errors import GatewayError
from gateway.mqtt.connection import ConnectionLostError, RefusedError, broker_name
from gateway.settings import MqttSettings, TlsSettings

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_CA = (2, 18, 19, 20, 21)
_NO_ISSUER = (2, 20, 21)
"""Nothing that we have signed the last certificate of the chain: a CA we do not know, or one between was not sent."""
_WRONG_NAME = (62, 64)
_HUNG_UP = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_NOT_SENT = (
    "; if it is that already, the broker does not send its intermediate certificates: have it send the whole chain "
    "(mosquitto: certfile holds the certificate, then the intermediate ones)"
)

C = TypeVar("C", bound=ssl.SSLContext)


def make_context(tls: TlsSettings, kind: type[C]) -> C:
    """A context that verifies the broker; the files are read anew, so that rotated ones count.

    Raises:
        RefusedError: a file cannot be read or is not what it should be.
    """
    context = kind(ssl.PROTOCOL_TLS_CLIENT)  # requires a certificate, and checks its name
    try:
        if tls.ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:
        files = ", ".join(str(file) for file in (tls.ca_file, tls.cert_file, tls.key_file) if file)
        raise RefusedError(f"mqtt.tls: cannot use {files}: {error.strerror or error}") from error
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    return context


def server_name(mqtt: MqttSettings) -> str:
    """The name that the broker's certificate must bear."""
    return (mqtt.tls.server_name if mqtt.tls else None) or mqtt.host


def explain(error: OSError | UnicodeError, mqtt: MqttSettings, *, dialling: bool = False) -> GatewayError:
    """What a failed attempt to connect (``dialling``), or a broken connection, means to an operator."""
    broker = broker_name(mqtt)
    if isinstance(error, ssl.SSLCertVerificationError):
        return RefusedError(f"{broker}: {_certificate(error, mqtt)}")
    if dialling and mqtt.tls and isinstance(error, _HUNG_UP):
        return ConnectionLostError(f"{broker} hangs up on TLS: is this the port of its TLS listener?")
    if isinstance(error, ssl.SSLError):
        return _explain_tls(error, broker)
    return ConnectionLostError(_explain_socket(error, mqtt, broker))


def _explain_socket(error: OSError | UnicodeError, mqtt: MqttSettings, broker: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"cannot resolve the host name {mqtt.host!r}: {error.strerror}"
    if isinstance(error, UnicodeError):
        return f"{mqtt.host!r} is no host name: {error}"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {broker}: connection refused"
    if isinstance(error, TimeoutError):
        return f"{broker} does not answer within {mqtt.connect_timeout:g} s"
    return f"{broker}: {error.strerror or error}"


def _certificate(error: ssl.SSLCertVerificationError, mqtt: MqttSettings) -> str:
    code = error.verify_code
    if code in _WRONG_NAME:
        return (
            f"the broker's certificate is not made out to {server_name(mqtt)!r}: connect by the name in the "
            "certificate, or set mqtt.tls.server_name to it"
        )
    if code in _UNKNOWN_CA:
        return (
            "the broker's certificate is signed by a CA that we do not trust: set mqtt.tls.ca_file to the "
            "certificate of the broker's CA" + (_NOT_SENT if code in _NO_ISSUER else "")
        )
    if code == _EXPIRED:
        return "the broker's certificate, or its CA's, has expired: renew it (or mend this machine's clock)"
    if code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet: mend this machine's clock"
    return f"the broker's certificate is refused: {error.verify_message}"


def _explain_tls(error: ssl.SSLError, broker: str) -> GatewayError:
    reason = error.reason or str(error)
    if "ALERT" in reason:
        words = reason.split("ALERT_")[-1].replace("_", " ").lower()
        return RefusedError(
            f"{broker} refuses the TLS connection ({words}): check mqtt.tls.cert_file and key_file, and that "
            "the broker trusts their CA"
        )
    if reason in _NO_TLS:
        return RefusedError(f"{broker} does not speak TLS: is this the port of its TLS listener?")
    return ConnectionLostError(f"{broker}: TLS failed: {reason.replace('_', ' ').lower()}")
