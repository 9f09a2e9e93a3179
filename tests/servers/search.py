"""Elasticsearch and OpenSearch of tests: one node each, with little memory."""

import base64
import hashlib
import http.client
import json
import os
import random
import shutil
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servers.certificates import write_certificates
from servers.install import installed
from servers.processes import Server, answers

_HEAP = ("-Xms256m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_NOBODY = 65534
_RUNNER_PORTS = range(9205, 9299)
"""Where OpenSearch's runner serves HTTP: elsewhere it will not."""

_READS = "-all,+dac_read_search"
"""What it may do beside: read what lies in the home of root, and folders of tests that root alone may enter."""


class SearchServer(Server):
    """What both have in common.

    Attributes:
        host: `HOST:PORT` for clients; the same over restarts.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.host = f"127.0.0.1:{self.port('http')}"

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Any:
        """What the server answers; `RuntimeError` where that is an error."""
        connection = self.connection()
        try:
            octets = None if body is None else json.dumps(body).encode()
            given = {"Content-Type": "application/json", **self.credentials(), **headers}
            connection.request(method, target, octets, given)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {target}: {answer.status}: {said.decode(errors='replace')}")
            return json.loads(said) if said.startswith((b"{", b"[")) else said.decode()
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        """A connection for one request."""
        return http.client.HTTPConnection(self.host, timeout=60)

    def credentials(self) -> dict[str, str]:
        """Headers that sign in."""
        return {}

    def is_up(self) -> bool:
        """Whether the node has its shards."""
        try:
            return bool(self.ask("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")["status"] != "red")
        except (OSError, RuntimeError, http.client.HTTPException):
            return False

    def documents(self, index: str) -> list[dict[str, Any]]:
        """Every document of the indices, with `_id` and `_index`."""
        self.ask("POST", f"/{index}-*/_refresh")
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"size": 5000, "sort": ["event.id"], "query": {"match_all": {}}, "version": True}
        while True:
            hits = self.ask("POST", f"/{index}-*/_search", query)["hits"]["hits"]
            if not hits:
                return found
            found += [{"_id": hit["_id"], "_index": hit["_index"], **hit["_source"]} for hit in hits]
            query["search_after"] = hits[-1]["sort"]

    def count(self, index: str) -> int:
        """How many documents the indices have."""
        self.ask("POST", f"/{index}-*/_refresh")
        return int(self.ask("GET", f"/{index}-*/_count")["count"])


class ElasticsearchServer(SearchServer):
    """One node of the distribution for integration tests: without lifecycle management and an answer to `GET /`.

    Args:
        folder: Where its ports, data and log are.
        users: Passwords by user, each with the role of the user's name (`superuser`, `viewer`, …); then connections are
            encrypted, too. `ask` is by the first of them.

    Attributes:
        authority: PEM file of the authority that signed its certificate, if it has `users`.
    """

    def __init__(self, folder: Path, users: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self._users = dict(users or {})
        self.authority = folder / "authority.pem"

    def start(self) -> "ElasticsearchServer":
        """Starts the node, with what its folder has of data, and returns when it answers."""
        home = installed("elasticsearch")
        config = self.folder / "config"
        for name in ("config", "data", "logs", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("jvm.options", "log4j2.properties"):
            shutil.copy(home / "config" / name, config)
        settings: dict[str, object] = {
            "cluster.name": "flowbeam-tests",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port("http"),
            "transport.port": self.port("transport"),
            "path.data": self.folder / "data",
            "path.logs": self.folder / "logs",
            "xpack.security.enabled": "false",
            "xpack.ml.enabled": "false",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        if self._users:
            settings |= self._secured(config)
        (config / "elasticsearch.yml").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
        as_user = []
        if os.getuid() == 0:  # Elasticsearch refuses root
            for path in (self.folder, *self.folder.rglob("*")):
                if path.name != "in_use":
                    os.chown(path, _NOBODY, _NOBODY)
            user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
            rights = ["--securebits=+no_setuid_fixup", f"--inh-caps={_READS}", f"--ambient-caps={_READS}"]
            as_user = ["setpriv", *user, *rights]
        java = Path(shutil.which("java") or "java").resolve().parents[1]
        environment = {
            "ES_JAVA_HOME": str(java),
            "ES_PATH_CONF": str(config),
            "ES_TMPDIR": str(self.folder / "tmp"),
            "ES_JAVA_OPTS": " ".join(_HEAP),
        }
        self.run_process("elasticsearch", *as_user, home / "bin" / "elasticsearch", environment=environment)
        self.wait_for("elasticsearch", self.is_up)
        return self

    def kill(self) -> None:
        """Ends the node as `kill -9` does; `start` brings it back with its data on the same port."""
        self._end_process("elasticsearch")

    def connection(self) -> http.client.HTTPConnection:
        if not self._users:
            return super().connection()
        context = ssl.create_default_context(cafile=str(self.authority))
        return http.client.HTTPSConnection(self.host, timeout=60, context=context)

    def credentials(self) -> dict[str, str]:
        for user, password in self._users.items():
            return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
        return {}

    def _secured(self, config: Path) -> dict[str, object]:
        """Writes users, roles and certificates; gives the settings that use them."""
        keys, certificate = config / "server.pem", config / "certificate.pem"
        if not keys.exists():
            write_certificates(keys, self.authority)
            shutil.copy(self.authority, certificate)  # which it reads from a file without a key alone
        (config / "users").write_text("".join(f"{user}:{_hashed(word)}\n" for user, word in self._users.items()))
        (config / "users_roles").write_text("".join(f"{user}:{user}\n" for user in self._users))
        (config / "roles.yml").write_text(
            "flow_writer:\n  indices:\n    - names: ['*']\n      privileges: [index, create_index]\n"
        )
        return {
            "xpack.security.enabled": "true",
            "xpack.security.http.ssl.enabled": "true",
            "xpack.security.http.ssl.key": keys,
            "xpack.security.http.ssl.certificate": certificate,
            "xpack.security.authc.password_hashing.algorithm": "pbkdf2",
            "xpack.security.authc.realms.file.file1.order": 0,
        }


def _hashed(password: str) -> str:
    """A password as the file of users has it."""
    salt = os.urandom(32)
    octets = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 10_000, 32)
    return "{PBKDF2}10000$" + "$".join(base64.b64encode(part).decode() for part in (salt, octets))


class OpenSearchServer(SearchServer):
    """One node of OpenSearch, without its security plugin."""

    def __init__(self, folder: Path) -> None:
        file = folder / "http.port"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(str(next(port for port in random.sample(_RUNNER_PORTS, 90) if not answers(port))))
        super().__init__(folder)

    def start(self) -> "OpenSearchServer":
        """Starts the node and returns when it answers."""
        jars = installed("opensearch")
        config = self.folder / "config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "opensearch.yml").write_text(f"transport.port: {self.port('transport')}\n")
        base = self.port("http") - 1  # it counts its nodes from 1
        words = ["-basePath", self.folder / "node", "-confPath", config, "-numOfNode", "1", "-baseHttpPort", base]
        runner = "org.codelibs.opensearch.runner.OpenSearchRunner"
        self.run_process("opensearch", "java", *_HEAP, "-cp", f"{jars}/*", runner, *words)
        self.wait_for("opensearch", self.is_up)
        return self

    def kill(self) -> None:
        """Ends the node as `kill -9` does."""
        self._end_process("opensearch")
