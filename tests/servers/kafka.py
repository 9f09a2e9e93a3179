"""A Kafka broker of tests, with its own controller (KRaft)."""

from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from servers.certificates import write_certificates
from servers.install import installed
from servers.processes import Server, answers, wait_until

_CLIENT = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200}


class KafkaServer(Server):
    """One broker, without TLS and password on `bootstrap`.

    Attributes:
        bootstrap: `HOST:PORT` for clients; the same over restarts.
        bootstrap_sasl: The same for SASL_PLAINTEXT with mechanism PLAIN; served if `users` were given.
        bootstrap_tls: The same for SSL, by a certificate for 127.0.0.1; served if `tls` was asked for.
        authority: PEM file of the certificate that signed it.
        passwords: Of the users, for the broker that is started next.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        tls: bool = False,
        settings: Mapping[str, object] | None = None,
        heap_mb: int = 512,
        quick_start: bool = True,
    ) -> None:
        """Describes the broker; `start` starts it.

        Args:
            folder: Where its ports, data and log are; another broker of the same folder is this one, restarted.
            users: Passwords by user, for `bootstrap_sasl`; also makes `restrict` work.
            tls: Whether `bootstrap_tls` is served.
            settings: Broker settings over ours.
            heap_mb: Most memory of the broker's heap.
            quick_start: Starts in half the time and is slower later; False for measurements.
        """
        super().__init__(folder)
        self.passwords = dict(users or {})
        self._tls = tls
        self._settings = dict(settings or {})
        self._heap_mb = heap_mb
        self._quick_start = quick_start
        self.bootstrap = f"127.0.0.1:{self.port('plain')}"
        self.bootstrap_sasl = f"127.0.0.1:{self.port('sasl')}"
        self.bootstrap_tls = f"127.0.0.1:{self.port('tls')}"
        self.authority = folder / "authority.pem"

    def start(self) -> "KafkaServer":
        """Starts the broker, with what its folder has of data, and returns when it serves its topics."""
        jars = installed("kafka")
        self._configure()
        self.run_process(
            "kafka",
            "java",
            f"-Xmx{self._heap_mb}m",
            *(["-XX:TieredStopAtLevel=1"] if self._quick_start else []),
            "-XX:-UsePerfData",
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}",
            "-cp",
            f"{jars}/*",
            "kafka.Kafka",
            self.folder / "server.properties",
        )
        self.wait_for("kafka", lambda: answers(self.port("plain")))
        self.wait_for("kafka", self.is_up)
        return self

    def is_up(self) -> bool:
        """Whether every partition of every topic has its leader."""
        if not answers(self.port("plain")):
            return False
        try:
            topics = self.admin().list_topics(timeout=5).topics.values()
        except KafkaException:
            return False
        return all(part.leader == 1 for topic in topics for part in topic.partitions.values())

    def kill(self) -> None:
        """Ends the broker as `kill -9` does; `start` brings it back with its data on the same ports."""
        self.kill_process("kafka")

    def change_password(self, user: str, password: str) -> None:
        """Gives a user of `bootstrap_sasl` another password, by a restart: connections of before are gone."""
        self.passwords[user] = password
        self.kill()
        self.start()

    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient({"bootstrap.servers": self.bootstrap, **_CLIENT})

    def create_topic(self, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None) -> None:
        """Makes a topic; its messages bear the time at which the broker got them, unless `settings` say otherwise."""
        config = {"message.timestamp.type": "LogAppendTime", **(settings or {})}
        admin = self.admin()
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)

        def served() -> bool:
            parts = admin.list_topics(name, timeout=10).topics[name].partitions
            return len(parts) == partitions and all(part.leader == 1 for part in parts.values())

        wait_until(served, 30, f"topic {name} is served")

    def delete_topic(self, name: str) -> None:
        """Removes a topic and what is in it."""
        admin = self.admin()
        admin.delete_topics([name])[name].result(30)
        wait_until(lambda: name not in admin.list_topics(timeout=10).topics, 30, f"topic {name} is gone")

    def settings_of(self, topic: str) -> dict[str, str]:
        """The settings of a topic, those of the broker included."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        admin = self.admin()
        entries = admin.describe_configs([resource])[resource].result(30)
        return {name: entry.value for name, entry in entries.items()}

    def restrict(self, topic: str, user: str) -> None:
        """Leaves a topic to one of the users (and to clients of `bootstrap`)."""
        rule = AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        admin = self.admin()
        admin.create_acls([rule])[rule].result(30)

    def _configure(self) -> None:
        """Writes the broker's settings, and the identity that makes its data folder usable without formatting it."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        identity = "version=1\ncluster.id=Zmxvd2JlYW0tdGVzdHMtMQ\nnode.id=1\ndirectory.id=Zmxvd2JlYW0tdGVzdHMtMg\n"
        if not (data / "meta.properties").exists():
            (data / "meta.properties").write_text(identity)
        listeners = [f"PLAIN://{self.bootstrap}"]
        settings: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self.port('controller')}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "broker.heartbeat.interval.ms": 500,
            # So long may the machine be too busy for a heartbeat, and so long a killed broker is not taken back.
            "broker.session.timeout.ms": 9000,
            "message.max.bytes": 4 << 20,
            "replica.fetch.max.bytes": 4 << 20,
        }
        if self.passwords:
            listeners.append(f"SASL://{self.bootstrap_sasl}")
            passwords = " ".join(f'user_{user}="{password}"' for user, password in self.passwords.items())
            login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
            settings |= {
                "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl.plain.sasl.jaas.config": f"{login} {passwords};",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "allow.everyone.if.no.acl.found": "true",
                "super.users": "User:ANONYMOUS",
            }
        if self._tls:
            listeners.append(f"TLS://{self.bootstrap_tls}")
            keys = self.folder / "server.pem"
            if not keys.exists():
                write_certificates(keys, self.authority)
            settings |= {
                "listener.name.tls.ssl.keystore.type": "PEM",
                "listener.name.tls.ssl.keystore.location": keys,
            }
        settings["advertised.listeners"] = ",".join(listeners)
        settings["listeners"] = ",".join([*listeners, f"CONTROLLER://127.0.0.1:{self.port('controller')}"])
        lines = [f"{name}={value}\n" for name, value in (settings | self._settings).items()]
        (self.folder / "server.properties").write_text("".join(lines))
