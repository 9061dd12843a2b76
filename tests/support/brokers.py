"""The brokers of the matrix: how each is started, and what its users have to know of it.

All but mosquitto and amqtt are put by ``tests/brokers/install`` into the folder that GATEWAY_BROKERS_DIR names.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.tools.servers import amqtt
from tests.support.processes import STOP_TIMEOUT, Process
from tests.support.servers import MissingServerError, Mosquitto, mosquitto_program
from tests.support.waiting import free_port, listening

FOLDER = Path(os.environ.get("GATEWAY_BROKERS_DIR") or Path.home() / ".cache/gateway-brokers")
PARTS = Path(__file__).parents[1] / "brokers/parts"
USER, PASSWORD = "gateway", "right"
V311, V5 = 4, 5


class Broker(Process):
    """A broker on loopback ports; its port and files outlive restarts.

    Args:
        closed: it lets nobody in but USER with PASSWORD, or nobody at all; otherwise everybody.

    Attributes:
        title: as it is called.
        login: user name and password, where none can come in without a name.
        speaks: protocol levels, the newest first; 4 is MQTT 3.1.1.
        shares: levels at which it knows ``$share``.
        persistent: sessions and their messages outlive a graceful stop.
        known_again: redeliveries to a new process carry the packet ids of before, and DUP, so that they can be told.
        again_in_process: redeliveries within one process carry the packet ids of before, which no others get meanwhile.
        keeps: what it has for a session is not lost while the client is away.
        resumes: after a stop it lets a session be resumed that has messages in flight.
        late: seconds after which it may send again what was not acknowledged.
    """

    title = ""
    login: tuple[str, str] | None = None
    speaks: Sequence[int] = (V5, V311)
    shares: Sequence[int] = (V5, V311)
    persistent = True
    known_again = True
    again_in_process = True
    keeps = True
    resumes = True
    late = 0.0

    def __init__(self, *, closed: bool = False) -> None:
        self.installed = self.found()
        super().__init__(self.title.lower())
        self.closed = closed
        self.port = free_port()
        self.prepare()

    @classmethod
    def found(cls) -> Path:
        """Where it is installed.

        Raises:
            MissingServerError: it is not.
        """
        name = cls.title.lower()
        folders = sorted(FOLDER.glob(f"{name}-*"))
        if not folders:
            raise MissingServerError(f"{cls.title} is not in {FOLDER}; run tests/brokers/install {name}")
        return folders[-1]

    @classmethod
    def version(cls) -> str:
        """Of what is installed."""
        return cls.found().name.rpartition("-")[2]

    def prepare(self) -> None:
        """Write its configuration."""

    def port_of(self, _level: int) -> int:
        """Where clients of this protocol level connect to."""
        return self.port

    def is_ready(self) -> bool:
        """It listens."""
        return all(listening(self.port_of(level)) for level in self.speaks)


class OnMosquitto(Mosquitto):
    """Mosquitto as Debian has it, without the bound on queues that it has by itself."""

    title = "mosquitto"
    login: tuple[str, str] | None = None
    speaks: Sequence[int] = (V5, V311)
    shares: Sequence[int] = (V5, V311)
    persistent = known_again = again_in_process = keeps = resumes = True
    late = 0.0

    def __init__(self, *, closed: bool = False) -> None:
        super().__init__(anonymous=not closed)

    @classmethod
    def found(cls) -> Path:
        """Where it is installed."""
        return Path(mosquitto_program())

    @classmethod
    def version(cls) -> str:
        """Of what is installed."""
        told = subprocess.run([str(cls.found()), "-h"], capture_output=True, text=True, check=False).stdout
        return (re.search(r"version (\S+)", told) or ["", "unknown"])[1]

    def port_of(self, _level: int) -> int:
        """Where clients connect to."""
        return self.port


class Epmd(Process):
    """Erlang's port mapper: with one of our own, none is left behind."""

    def __init__(self, erlang: Path) -> None:
        super().__init__("epmd")
        self.port, self._erlang = free_port(), erlang

    def command(self) -> Sequence[str]:
        """In the foreground."""
        (program,) = self._erlang.glob("erts-*/bin/epmd")
        return [str(program), "-port", str(self.port), "-address", "127.0.0.1"]

    def is_ready(self) -> bool:
        """It listens."""
        return listening(self.port)


class RabbitMq(Broker):
    """Debian's RabbitMQ with its MQTT plugin: 3.1.1 only, no shared subscriptions; sessions are durable queues."""

    title = "RabbitMQ"
    speaks = (V311,)
    shares = ()
    known_again = again_in_process = False

    def prepare(self) -> None:
        """Base directory, plugins and ports of its own."""
        self._erlang = self.installed / "usr/lib/erlang"
        self._epmd = Epmd(self._erlang)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{free_port()}",
            f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"mqtt.allow_anonymous = {str(not self.closed).lower()}",
            "mqtt.subscription_ttl = undefined",
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")

    def launch(self) -> None:
        """After epmd."""
        if not self._epmd.running:
            self._epmd.start()
        super().launch()

    def command(self) -> Sequence[str]:
        """The node in the foreground, without a shell before it."""
        (sbin,) = self.installed.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
        return [str(sbin / "rabbitmq-server")]

    def environment(self) -> Mapping[str, str]:
        """All below our folder."""
        return {
            **os.environ,
            "PATH": f"{self._erlang / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_NODENAME": f"matrix{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput",
        }

    def close(self) -> None:
        """With its epmd."""
        super().close()
        self._epmd.close()


class Ejabberd(Broker):
    """Debian's ejabberd with mod_mqtt: no shared subscriptions; what waits in a session is in memory."""

    title = "ejabberd"
    shares = ()
    persistent = False
    login = (USER, PASSWORD)

    def prepare(self) -> None:
        """MQTT alone, anonymous unless closed."""
        self._distribution = free_port()
        method = "internal" if self.closed else "anonymous"
        lines = [
            "hosts: [localhost]",
            "loglevel: info",
            f"auth_method: [{method}]",
            "listen:",
            f"  - {{port: {self.port}, ip: 127.0.0.1, module: mod_mqtt}}",
            "modules:",
            "  mod_mqtt: {session_expiry: 1 hour, max_queue: 100000}",
        ]
        if not self.closed:
            lines += ["anonymous_protocol: login_anon", "allow_multiple_connections: true"]
        (self.folder / "ejabberd.yml").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """The node in the foreground, without epmd."""
        node = ["-sname", f"matrix{self.port}@localhost", "-erl_epmd_port", str(self._distribution)]
        spool = f'"{self.folder / "spool"}"'
        return [
            str(self.installed / "usr/lib/erlang/bin/erl"),
            *("-noinput", *node, "-start_epmd", "false", "-mnesia", "dir", spool, "-s", "ejabberd"),
        ]

    def environment(self) -> Mapping[str, str]:
        """Where its parts and files are."""
        libraries = self.installed / "usr/lib/x86_64-linux-gnu"
        return {
            **os.environ,
            "HOME": str(self.folder),
            "ERL_LIBS": str(libraries),
            "LD_LIBRARY_PATH": str(libraries),
            "ERL_DIST_PORT": str(self._distribution),
            "EJABBERD_CONFIG_PATH": str(self.folder / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(self.folder / "ejabberd.log"),
        }


class OnJava(Broker):
    """What runs in a Java machine."""

    def java(self, *arguments: str) -> Sequence[str]:
        """A small machine with all of ``lib`` on its path."""
        program = shutil.which("java")
        if program is None:
            raise MissingServerError("java is not on the PATH; install a JDK, such as 'default-jdk-headless'")
        return [program, "-Xmx512m", "-cp", f"{self.installed}/lib/*", *arguments]


class HiveMq(OnJava):
    """HiveMQ Community Edition; without an extension it refuses all, or takes all. Its ids come again (ADR 8)."""

    title = "HiveMQ"
    known_again = again_in_process = False

    def prepare(self) -> None:
        """A home with one listener."""
        for name in ("conf", "data", "log", "extensions"):
            (self.folder / name).mkdir()
        (self.folder / "conf/config.xml").write_text(
            f"<hivemq><listeners><tcp-listener><port>{self.port}</port><bind-address>127.0.0.1</bind-address>"
            "</tcp-listener></listeners></hivemq>\n"
        )

    def command(self) -> Sequence[str]:
        """By our main class, which says whether all are refused."""
        home = f"-Dhivemq.home={self.folder}"
        return self.java(home, str(PARTS / "HiveMq.java"), "closed" if self.closed else "open")


class Moquette(OnJava):
    """Moquette, which speaks 3.1.1; its sessions, but not what waits in them, outlive a stop."""

    title = "Moquette"
    speaks = (V311,)
    shares = ()
    persistent = known_again = again_in_process = False

    def prepare(self) -> None:
        """Its home."""
        for name in ("config", "data"):
            (self.folder / name).mkdir()
        passwords = self.folder / "config/passwords"
        passwords.write_text(f"{USER}:{hashlib.sha256(PASSWORD.encode()).hexdigest()}\n")
        lines = [
            f"port {self.port}",
            "host 127.0.0.1",
            f"allow_anonymous {str(not self.closed).lower()}",
            "persistence_enabled true",
            f"data_path {self.folder}/data",
            "telemetry_enabled false",
        ]
        if self.closed:
            lines.append(f"password_file {passwords}")
        (self.folder / "config/moquette.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """Its own main class."""
        return self.java(f"-Dmoquette.path={self.folder}", "io.moquette.broker.Server")


class Artemis(Broker):
    """ActiveMQ Artemis with a journal."""

    title = "Artemis"
    known_again = again_in_process = False

    def prepare(self) -> None:
        """An instance, with MQTT as its only acceptor."""
        names = ["--user", USER, "--password", PASSWORD]
        door = "--require-login" if self.closed else "--allow-anonymous"
        left_out = ["--no-web", "--no-amqp-acceptor", "--no-hornetq-acceptor", "--no-stomp-acceptor"]
        program = str(self.installed / "artemis/bin/artemis")
        options = [*left_out, "--no-autotune", "--host", "127.0.0.1", "--default-port", str(free_port())]
        made = subprocess.run(
            [program, "create", str(self.folder / "it"), *names, door, *options, "--silent"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        file = self.folder / "it/etc/broker.xml"
        file.write_text(re.sub(r"tcp://[\d.]+:1883", f"tcp://127.0.0.1:{self.port}", file.read_text()))

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [str(self.folder / "it/bin/artemis"), "run"]


CAPABILITIES = (
    *(
        "maximum_clients: 1000",
        "maximum_message_expiry_interval: 86400",
        "maximum_client_writes_pending: 8192",
    ),
    *("maximum_session_expiry_interval: 86400", "receive_maximum: 1024", "maximum_inflight: 8192"),
    *("shared_sub_available: 1", "minimum_protocol_version: 3", "maximum_qos: 2", "retain_available: 1"),
    *("wildcard_sub_available: 1", "sub_id_available: 1"),
)
"""mochi's own defaults; what is not named is 0 as soon as one is."""


class Mochi(Broker):
    """mochi-mqtt with bolt as its store. A client that comes back may lose what is published just then.

    Messages in flight come out of its store without their packet ids after a stop, and it closes every connection of
    such a session (``resend inflight: protocol violation: missing packet id`` in its log).
    """

    title = "mochi"
    known_again = again_in_process = keeps = resumes = False

    def prepare(self) -> None:
        """Its configuration."""
        ledger = f"{{auth: [{{username: {USER}, password: {PASSWORD}, allow: true}}]}}"
        door = f"{{allow_all: false, ledger: {ledger}}}" if self.closed else "{allow_all: true}"
        lines = [
            f'listeners: [{{type: tcp, id: one, address: "127.0.0.1:{self.port}"}}]',
            f"hooks: {{auth: {door}, storage: {{bolt: {{path: {self.folder}/bolt.db, bucket: mochi}}}}}}",
            f"options: {{capabilities: {{{', '.join(CAPABILITIES)}}}}}",
        ]
        (self.folder / "mochi.yaml").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """Its program for containers, which is the one that reads a configuration."""
        return [str(self.installed / "docker"), "-config", str(self.folder / "mochi.yaml")]


class Nats(Broker):
    """NATS with JetStream: 3.1.1 only. What is not acknowledged comes again after ack_wait (30 s unless set).

    On the same connection, or behind newer messages of the next one, where it cannot be told from them.
    """

    title = "NATS"
    speaks = (V311,)
    shares = ()
    again_in_process = False
    late = 7.0

    def prepare(self) -> None:
        """Its configuration."""
        lines = [
            f"server_name: matrix{self.port}",
            f'listen: "127.0.0.1:{free_port()}"',
            f'jetstream {{ store_dir: "{self.folder}/store" }}',
            f'mqtt {{ listen: "127.0.0.1:{self.port}", ack_wait: "5s" }}',
        ]
        if self.closed:
            lines.append(f'authorization {{ user: {USER}, password: "{PASSWORD}" }}')
        (self.folder / "nats.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [str(self.installed / "nats-server"), "-c", str(self.folder / "nats.conf")]


class Aedes(Broker):
    """aedes with its store in memory, in a program of ours: 3.1.1 only."""

    title = "aedes"
    speaks = (V311,)
    shares = ()
    persistent = known_again = False

    def command(self) -> Sequence[str]:
        """In the foreground."""
        program = shutil.which("node")
        if program is None:
            raise MissingServerError("node is not on the PATH; install the package 'nodejs'")
        door = ["closed"] if self.closed else []
        return [program, str(PARTS / "aedes.mjs"), str(self.installed), str(self.port), *door]


class Rumqttd(Broker):
    """rumqttd: a port for each protocol, all in memory; a stop is a kill."""

    title = "rumqttd"
    persistent = known_again = again_in_process = False

    def prepare(self) -> None:
        """Its configuration."""
        self._port_5 = free_port()
        lines = ["id = 0", "[router]", "id = 0", "max_connections = 100", "max_outgoing_packet_count = 200"]
        lines += ["max_segment_size = 104857600", "max_segment_count = 10"]
        for level, port in ((4, self.port), (5, self._port_5)):
            lines += [f"[v{level}.1]", f'name = "v{level}"', f'listen = "127.0.0.1:{port}"']
            lines += ["next_connection_delay_ms = 1", f"[v{level}.1.connections]"]
            lines += ["connection_timeout_ms = 60000", "max_payload_size = 20480", "max_inflight_count = 100"]
            lines += ["dynamic_filters = true"]
            if self.closed:
                lines.append(f'auth = {{ {USER} = "{PASSWORD}" }}')
        (self.folder / "rumqttd.toml").write_text("\n".join(lines) + "\n")

    def port_of(self, level: int) -> int:
        """One a protocol."""
        return self._port_5 if level == V5 else self.port

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [str(self.installed / "bin/rumqttd"), "-c", str(self.folder / "rumqttd.toml")]

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """It knows no other."""
        self.signal(signal.SIGINT)
        return self.wait(timeout)


class Amqtt(Broker):
    """amqtt, which comes with the demo: 3.1.1 only, all in memory; what is in flight when a connection ends is lost."""

    title = "amqtt"
    speaks = (V311,)
    shares = ()
    persistent = known_again = keeps = False

    @classmethod
    def found(cls) -> Path:
        """It is a requirement of the tests."""
        return Path(sys.executable)

    @classmethod
    def version(cls) -> str:
        """Of what is installed."""
        return importlib.metadata.version("amqtt")

    def prepare(self) -> None:
        """Its configuration."""
        (self.folder / "passwords").touch()
        members = (
            "  amqtt.plugins.authentication.FileAuthPlugin:",
            f"    password_file: {self.folder}/passwords",
        )
        text = amqtt.configuration(self.port, *(members if self.closed else amqtt.ANYBODY))
        (self.folder / "amqtt.yaml").write_text(text)

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return amqtt.command(self.folder / "amqtt.yaml")


KINDS: Sequence[type[OnMosquitto | Broker]] = (
    *(OnMosquitto, RabbitMq, HiveMq, Artemis, Moquette, Mochi, Nats, Aedes, Rumqttd, Ejabberd, Amqtt),
)
"""All brokers of the matrix."""

AnyBroker = OnMosquitto | Broker
