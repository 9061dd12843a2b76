"""The contract of every source where brokers are particular: TLS, credentials, access rules, other transports."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.observability.health import ComponentState
from gateway.settings import StreamSettings, TlsSettings
from tests.conftest import lacking
from tests.contracts.conftest import Options
from tests.support.certificates import Authority
from tests.support.reception import numbered, publish, receiving
from tests.support.servers import Mosquitto
from tests.support.waiting import free_port, listening

pytestmark = pytest.mark.mosquitto

STREAM = StreamSettings(name="telemetry", topic="t/{tenant}/{device}")
StartMosquitto = Callable[..., Mosquitto]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA."""
    return Authority(tmp_path)


class TlsBroker:
    """A mosquitto with one more listener, which speaks TLS and asks for a client certificate."""

    def __init__(
        self,
        start: StartMosquitto,
        authority: Authority,
        *,
        issuer: Authority | None = None,
        **certificate: Any,
    ) -> None:
        pair = (issuer or authority).issue("broker", **certificate)
        self.port = free_port()
        self.plain = start(
            extra=[
                f"listener {self.port} 127.0.0.1",
                f"cafile {authority.file}",
                f"certfile {pair.certificate}",
                f"keyfile {pair.key}",
                "require_certificate true",
            ]
        )
        client = authority.issue("client")
        self.tls = TlsSettings(ca_file=authority.file, cert_file=client.certificate, key_file=client.key)

    def tls_but(self, **changes: Any) -> TlsSettings:
        """What would connect, with changes."""
        return self.tls.model_copy(update=changes)


async def test_tls_with_ca_and_client_certificate(
    start_mosquitto: StartMosquitto, authority: Authority, options: Options
) -> None:
    """Messages come through TLS, large ones too, with a pause, and everything is acknowledged."""
    broker = await asyncio.to_thread(TlsBroker, start_mosquitto, authority)
    mqtt = options(broker.port, host="localhost", tls=broker.tls)
    async with receiving(mqtt, STREAM, settle=True) as reception:
        await reception.ready()
        await asyncio.to_thread(publish, broker.plain.port, "t/a/d", [*numbered(200), bytes(3_000_000)])
        await reception.messages(201)
        reception.source.pause()
        await asyncio.to_thread(publish, broker.plain.port, "t/a/d", numbered(50))
        reception.source.resume()
        await reception.messages(251)
    assert [*numbered(200), bytes(3_000_000), *numbered(50)] == reception.payloads


async def test_the_expected_name_can_be_set(
    start_mosquitto: StartMosquitto, authority: Authority, options: Options
) -> None:
    """By address, through a tunnel: the name in the certificate counts, and it is what we send as SNI."""
    broker = await asyncio.to_thread(TlsBroker, start_mosquitto, authority, host="broker.example.org")
    mqtt = options(broker.port, tls=broker.tls_but(server_name="broker.example.org"))
    async with receiving(mqtt, STREAM) as reception:
        await reception.ready()


async def test_a_wrong_ca_is_told(
    start_mosquitto: StartMosquitto, authority: Authority, options: Options, tmp_path: Path
) -> None:
    """Says what to set, keeps trying, and goes on once the right CA is in the file."""
    broker = await asyncio.to_thread(TlsBroker, start_mosquitto, authority)
    ca_file = tmp_path / "configured.pem"
    ca_file.write_bytes(Authority(tmp_path, "other").file.read_bytes())
    mqtt = options(broker.port, host="localhost", tls=broker.tls_but(ca_file=ca_file))
    async with receiving(mqtt, STREAM) as reception:
        await reception.state(ComponentState.FAILED, "a CA that we do not trust: set mqtt.tls.ca_file")
        ca_file.write_bytes(authority.file.read_bytes())
        await reception.ready()


async def test_a_broker_that_does_not_send_its_intermediate_is_told(
    start_mosquitto: StartMosquitto, authority: Authority, options: Options, tmp_path: Path
) -> None:
    """The right CA is in the file: it is the broker that must send more, and the text says so."""
    between = Authority(tmp_path, "between", above=authority)
    broker = await asyncio.to_thread(TlsBroker, start_mosquitto, authority, issuer=between)
    mqtt = options(broker.port, host="localhost", tls=broker.tls)
    async with receiving(mqtt, STREAM) as reception:
        await reception.state(
            ComponentState.FAILED, "does not send its intermediate certificates: have it send the whole chain"
        )


async def test_an_expired_certificate_is_told(
    start_mosquitto: StartMosquitto, authority: Authority, options: Options
) -> None:
    """It is the broker's administrator who must act, and the text says so."""
    broker = await asyncio.to_thread(TlsBroker, start_mosquitto, authority, expired=True)
    async with receiving(options(broker.port, host="localhost", tls=broker.tls), STREAM) as reception:
        await reception.state(ComponentState.FAILED, "has expired: renew it")


async def test_a_wrong_host_name_is_told(
    start_mosquitto: StartMosquitto, authority: Authority, options: Options
) -> None:
    """The text names the name we expected."""
    broker = await asyncio.to_thread(TlsBroker, start_mosquitto, authority, host="elsewhere.example.org")
    async with receiving(options(broker.port, host="localhost", tls=broker.tls), STREAM) as reception:
        await reception.state(ComponentState.FAILED, "is not made out to 'localhost'")


async def test_a_missing_client_certificate_is_told(
    start_mosquitto: StartMosquitto, authority: Authority, options: Options
) -> None:
    """The broker's alert is put into words."""
    broker = await asyncio.to_thread(TlsBroker, start_mosquitto, authority)
    tls = broker.tls_but(cert_file=None, key_file=None)
    async with receiving(options(broker.port, host="localhost", tls=tls), STREAM) as reception:
        await reception.state(ComponentState.FAILED, "check mqtt.tls.cert_file")


async def test_a_file_that_is_not_there_is_named(
    mosquitto_broker: Mosquitto, options: Options, tmp_path: Path
) -> None:
    """Missing certificate files are named, and waited for."""
    tls = TlsSettings(ca_file=tmp_path / "absent.pem")
    async with receiving(options(mosquitto_broker.port, tls=tls), STREAM) as reception:
        await reception.state(ComponentState.FAILED, "absent.pem: No such file")


async def test_tls_to_a_port_without_tls_is_told(mosquitto_broker: Mosquitto, options: Options) -> None:
    """The commonest mistake: the right host, the wrong port."""
    async with receiving(options(mosquitto_broker.port, tls=TlsSettings()), STREAM) as reception:
        await reception.state(ComponentState.WAITING, "is this the port of its TLS listener?")


async def test_refused_credentials_are_told(
    start_mosquitto: StartMosquitto, options: Options, tmp_path: Path
) -> None:
    """Not ready, a clear text without the secret; a rotated password file mends it without a restart."""
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    _set_password(passwords, "gateway", "right")
    broker = await asyncio.to_thread(start_mosquitto, anonymous=False, extra=[f"password_file {passwords}"])
    secret.write_text("wrong\n")
    mqtt = options(broker.port, username="gateway", password_file=secret)
    async with receiving(mqtt, STREAM) as reception:
        detail = await reception.state(ComponentState.FAILED, "check mqtt.username")
        assert "wrong" not in detail
        secret.write_text("right\n")
        await reception.ready()
        secret.unlink()


def _set_password(file: Path, user: str, password: str) -> None:
    file.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(file), user, password], check=True)


async def test_a_refused_subscription_names_its_topic(
    start_mosquitto: StartMosquitto, options: Options, tmp_path: Path
) -> None:
    """That stream gets nothing and we are not ready; the other streams go on."""
    broker = await asyncio.to_thread(start_mosquitto, extra=_access_rules(tmp_path, allowed="t/+/+"))
    mqtt = options(broker.port, username="gateway", password="secret")
    forbidden = StreamSettings(name="other", topic="forbidden/{tenant}/{device}")
    async with receiving(mqtt, forbidden, STREAM, settle=True) as reception:
        await reception.state(ComponentState.FAILED, "refuses subscriptions: forbidden/+/+")
        await asyncio.to_thread(_publish_as, broker.port, "t/a/d", b"x")
        await reception.messages(1)
        await reception.state(ComponentState.FAILED)


def _access_rules(folder: Path, allowed: str) -> list[str]:
    """Mosquitto's dynamic security: all may publish, the user gateway may subscribe to one filter."""
    places = ("lib", "lib64", "lib/*-linux-gnu")
    found = [file for place in places for file in Path("/usr").glob(f"{place}/mosquitto_dynamic_security.so")]
    if not found:
        lacking("mosquitto", "it came without its dynamic security plugin")
    salt = secrets.token_bytes(12)
    rule = {"acltype": "subscribeLiteral", "topic": allowed, "allow": True}
    rules = {
        "defaultACLAccess": {
            "publishClientSend": True,
            "publishClientReceive": True,
            "subscribe": False,
            "unsubscribe": True,
        },
        "roles": [{"rolename": "reader", "acls": [rule]}],
        "clients": [
            {
                "username": "gateway",
                "salt": base64.b64encode(salt).decode(),
                "password": base64.b64encode(hashlib.pbkdf2_hmac("sha512", b"secret", salt, 101)).decode(),
                "iterations": 101,
                "roles": [{"rolename": "reader"}],
            }
        ],
    }
    file = folder / "rules.json"
    file.write_text(json.dumps(rules))
    file.chmod(0o600)
    return [f"plugin {found[0]}", f"plugin_opt_config_file {file}"]


def _publish_as(port: int, topic: str, payload: bytes) -> None:
    login = ["-u", "gateway", "-P", "secret"]
    place = ["-p", str(port), "-q", "1", "-t", topic, "-m", payload.decode()]
    subprocess.run(["mosquitto_pub", *login, *place], check=True)


async def test_a_unix_socket(start_mosquitto: StartMosquitto, options: Options, tmp_path: Path) -> None:
    """A broker on the same machine needs no TCP."""
    path = tmp_path / "broker.sock"
    broker = await asyncio.to_thread(start_mosquitto, extra=[f"listener 0 {path}"])
    async with receiving(options(1, unix_socket=path), STREAM, settle=True) as reception:
        await reception.ready()
        await asyncio.to_thread(publish, broker.port, "t/a/d", numbered(100))
        await reception.messages(100)
        assert str(path) in reception.health.detail


async def test_a_websocket(mosquitto_broker: Mosquitto, options: Options) -> None:
    """A broker behind an HTTP proxy is reached by WebSocket; protocol 'auto' chooses what can do it."""
    async with _websocket_to(mosquitto_broker.port) as port:
        mqtt = options(port, websocket_path="/mqtt", protocol="auto")
        async with receiving(mqtt, STREAM, settle=True) as reception:
            await reception.ready()
            await asyncio.to_thread(publish, mosquitto_broker.port, "t/a/d", [*numbered(100), bytes(300_000)])
            await reception.messages(101)
        assert [*numbered(100), bytes(300_000)] == reception.payloads


async def test_a_wrong_websocket_path_is_told(mosquitto_broker: Mosquitto, options: Options) -> None:
    """The path is the first thing to look at."""
    async with _websocket_to(mosquitto_broker.port) as port:
        mqtt = options(port, websocket_path="/other", protocol="auto")
        async with receiving(mqtt, STREAM) as reception:
            await reception.state(ComponentState.WAITING, "check mqtt.websocket_path")


@contextlib.asynccontextmanager
async def _websocket_to(broker_port: int) -> AsyncIterator[int]:
    """A WebSocket server that passes everything on to a broker's TCP port."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["mqtt"])
        await socket.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", broker_port)

        async def down() -> None:
            while read := await reader.read(65536):
                await socket.send_bytes(read)
            await socket.close()

        passing = asyncio.create_task(down())
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                writer.write(message.data)
        writer.close()
        await passing
        return socket

    app = web.Application()
    app.router.add_get("/mqtt", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    assert listening(port)
    try:
        yield port
    finally:
        await runner.cleanup()
