"""Elasticsearch and OpenSearch of tests: one node each, with little memory."""

import http.client
import json
import os
import shutil
from pathlib import Path
from typing import Any

from servers.install import installed
from servers.processes import Server

_HEAP = ("-Xms256m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_NOBODY = 65534
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
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            octets = None if body is None else json.dumps(body).encode()
            connection.request(method, target, octets, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {target}: {answer.status}: {said.decode(errors='replace')}")
            return json.loads(said) if said.startswith((b"{", b"[")) else said.decode()
        finally:
            connection.close()

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
    """One node of the distribution for integration tests: without lifecycle management and an answer to `GET /`."""

    def start(self) -> "ElasticsearchServer":
        """Starts the node, with what its folder has of data, and returns when it answers."""
        home = installed("elasticsearch")
        config = self.folder / "config"
        for name in ("config", "data", "logs", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("jvm.options", "log4j2.properties"):
            shutil.copy(home / "config" / name, config)
        settings = {
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


class OpenSearchServer(SearchServer):
    """One node of OpenSearch, without its security plugin."""

    def start(self) -> "OpenSearchServer":
        """Starts the node and returns when it answers."""
        jars = installed("opensearch")
        first = self.port("http")
        self.run_process(
            "opensearch",
            "sh",
            "-c",  # it ends with its standard input
            'sleep infinity | exec java "$@"',
            "opensearch",
            *_HEAP,
            "-cp",
            f"{jars}/*",
            "org.codelibs.opensearch.runner.OpenSearchRunner",
            "-basePath",
            self.folder / "node",
            "-numOfNode",
            "1",
            "-baseHttpPort",
            str(first - 1),  # it counts its nodes from 1
            "-maxHttpPort",
            str(first),
        )
        self.wait_for("opensearch", self.is_up)
        return self

    def kill(self) -> None:
        """Ends the node as `kill -9` does."""
        self._end_process("opensearch")
