"""A Cassandra node of tests, alone in its cluster."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers.certificates import write_certificates
from servers.install import installed
from servers.processes import Server, answers

USER = PASSWORD = "cassandra"
"""Who may do everything."""

_OPENED = """
java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/sun.nio.ch
java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server
java.sql/java.sql java.base/java.lang.ref java.base/java.lang.module java.base/jdk.internal.loader
java.base/jdk.internal.reflect java.base/jdk.internal.math java.base/jdk.internal.module
java.base/jdk.internal.util.jar jdk.management/com.sun.management.internal java.base/java.io java.base/java.lang
java.base/java.lang.reflect java.base/java.math java.base/java.net java.base/java.nio java.base/java.util
java.base/java.util.concurrent java.base/java.util.concurrent.atomic
"""
"""What of Java's own modules the node reaches into."""

_JVM = (
    "-Xms512m -Xmx512m -XX:+UseSerialGC -Xss512k -XX:TieredStopAtLevel=1 -XX:-UsePerfData"
    " -Djdk.attach.allowAttachSelf=true -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=0"
    " -Dcassandra.superuser_setup_delay_ms=0 -Dcassandra.initial_token=0"
)

_LOGGING = """<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{ISO8601} %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="console"/></root>
</configuration>
"""


class CassandraServer(Server):
    """One node: with passwords, and with TLS beside plain connections on the same port.

    Attributes:
        address: `HOST:PORT` for clients; the same over restarts.
        authority: PEM file of the certificate that signed the node's.
    """

    def __init__(self, folder: Path) -> None:
        """Describes the node; `start` starts it. Another one of the same folder is this one, restarted."""
        super().__init__(folder)
        self.address = f"127.0.0.1:{self.port('native')}"
        self.authority = folder / "authority.pem"

    def start(self) -> "CassandraServer":
        """Starts the node, with what its folder has of data, and returns when it answers its first user."""
        jars = installed("cassandra")
        self._configure()
        opened = [
            word
            for module in _OPENED.split()
            for word in (f"--add-exports={module}=ALL-UNNAMED", f"--add-opens={module}=ALL-UNNAMED")
        ]
        (jamm,) = jars.glob("jamm-*.jar")
        self.run_process(
            "cassandra",
            "java",
            *opened,
            f"-javaagent:{jamm}",
            *_JVM.split(),
            f"-Dcassandra.config=file://{self.folder}/cassandra.yaml",
            f"-Dcassandra.storagedir={self.folder}",
            f"-Dlogback.configurationFile={self.folder}/logback.xml",
            f"-Djava.io.tmpdir={self.folder}",
            "-cp",
            f"{self.folder}:{jars}/*",
            "org.apache.cassandra.service.CassandraDaemon",
        )
        self.wait_for("cassandra", lambda: answers(self.port("native")))
        self.wait_for("cassandra", self.is_up)
        return self

    def is_up(self) -> bool:
        """Whether the node lets its first user in."""
        if not answers(self.port("native")):
            return False
        from cassandra import DriverException
        from cassandra.cluster import NoHostAvailable

        with contextlib.suppress(NoHostAvailable, DriverException), self.session():
            return True
        return False

    def kill(self) -> None:
        """Ends the node as `kill -9` does; `start` brings it back with its data on the same port."""
        self.kill_process("cassandra")

    @contextlib.contextmanager
    def session(self, user: str = USER, password: str = PASSWORD) -> Iterator[Any]:
        """A session of the driver; rows come as dictionaries."""
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import RoundRobinPolicy
        from cassandra.query import dict_factory

        profile = ExecutionProfile(RoundRobinPolicy(), request_timeout=60, row_factory=dict_factory)
        cluster = Cluster(
            ["127.0.0.1"],
            self.port("native"),
            auth_provider=PlainTextAuthProvider(user, password),
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=20,
        )
        try:
            yield cluster.connect()
        finally:
            cluster.shutdown()

    def create_keyspace(self, name: str) -> None:
        """Makes a keyspace of one copy."""
        with self.session() as session:
            copies = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
            session.execute(f"CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {copies}")

    def _configure(self) -> None:
        keys = self.folder / "server.pem"
        if not keys.exists():
            write_certificates(keys, self.authority)
        storage = self.port("storage")
        settings = {
            "cluster_name": "tests",
            "num_tokens": 1,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "commitlog_sync": "periodic",
            "commitlog_sync_period": "10000ms",
            "listen_address": "127.0.0.1",
            "rpc_address": "127.0.0.1",
            "start_native_transport": True,
            "native_transport_port": self.port("native"),
            "storage_port": storage,
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": f"127.0.0.1:{storage}"}],
                }
            ],
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "permissions_validity": "500ms",
            "roles_validity": "500ms",
            "auto_snapshot": False,
            "auto_bootstrap": False,
            "disk_access_mode": "mmap_index_only",
            "memtable_heap_space": "64MiB",
            "memtable_offheap_space": "64MiB",
            "key_cache_size": "8MiB",
            "file_cache_size": "32MiB",
            "commitlog_segment_size": "8MiB",
            "commitlog_total_space": "64MiB",
            "commitlog_directory": f"{self.folder}/commitlog",
            "data_file_directories": [f"{self.folder}/data"],
            "hints_directory": f"{self.folder}/hints",
            "saved_caches_directory": f"{self.folder}/saved",
            "cdc_raw_directory": f"{self.folder}/cdc",
            "client_encryption_options": {
                "enabled": True,
                "optional": True,
                "keystore": str(keys),
                "ssl_context_factory": {"class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory"},
            },
        }
        (self.folder / "cassandra.yaml").write_text(json.dumps(settings, indent=1))  # JSON is YAML
        (self.folder / "logback.xml").write_text(_LOGGING)
