"""Fixtures of real servers: `elasticsearch`, `opensearch`, `kafka`, `flink`, `pubsub`, `prism` and others.

A server is started by the first test process of a run that asks for it, serves all of them, and ends with the last. So
tests share it: they use topics of their own, and take what they kill from `servers.kafka` and its like, in `tmp_path`.
"""

import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from servers.install import NotInstalled, install, installed
from servers.processes import Server

if TYPE_CHECKING:
    from servers.bigquery import BigQueryEmulator
    from servers.cassandra import CassandraServer
    from servers.flink import FlinkCluster
    from servers.kafka import KafkaServer
    from servers.pubsub import PubSubEmulator
    from servers.search import ElasticsearchServer, OpenSearchServer

_Kind = TypeVar("_Kind", bound=Server)


def need(*names: str) -> None:
    """Skips a test where a server is not installed; on a build server (CI=true) installs it, or fails."""
    for name in names:
        try:
            if os.environ.get("CI") == "true":
                install(name)
            else:
                installed(name)
        except NotInstalled as line:
            if os.environ.get("CI") == "true":
                pytest.fail(str(line), pytrace=False)
            pytest.skip(str(line))


def shared(run: Path, name: str, make: Callable[[Path], _Kind]) -> Iterator[_Kind]:
    """One server for all processes of a run, whose folder is `run`; to be used as a generator fixture."""
    top = run / "servers"
    top.mkdir(exist_ok=True)
    with open(top / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number in itertools.count():
            folder = top / f"{name}-{number}"
            if folder.exists():
                server = make(folder)
                if server.join():
                    break
            else:
                server = make(folder).start()
                break
    yield server
    server.leave()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this run of the tests share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def kafka(run_folder: Path) -> "Iterator[KafkaServer]":
    """A Kafka broker, shared: name topics for the test."""
    need("kafka")
    from servers.kafka import KafkaServer

    yield from shared(run_folder, "kafka", KafkaServer)


@pytest.fixture(scope="session")
def cassandra(run_folder: Path) -> "Iterator[CassandraServer]":
    """A Cassandra node, shared and large: name keyspaces for the test, and mark it `xdist_group("cassandra")`."""
    need("cassandra")
    from servers.cassandra import CassandraServer

    yield from shared(run_folder, "cassandra", CassandraServer)


@pytest.fixture(scope="session")
def flink(run_folder: Path) -> "Iterator[FlinkCluster]":
    """A Flink cluster of four slots, shared: cancel your jobs, and mark the test `xdist_group("flink")`."""
    need("flink", "flink-job-server", "python-worker")
    from servers.flink import FlinkCluster

    yield from shared(run_folder, "flink", FlinkCluster)


@pytest.fixture(scope="session")
def pubsub(run_folder: Path) -> "Iterator[PubSubEmulator]":
    """A Pub/Sub emulator, shared: name topics and subscriptions for the test."""
    need("pubsub")
    from servers.pubsub import PubSubEmulator

    yield from shared(run_folder, "pubsub", PubSubEmulator)


@pytest.fixture(scope="session")
def bigquery(run_folder: Path) -> "Iterator[BigQueryEmulator]":
    """A BigQuery emulator, shared: name tables for the test. It is nobody's duty to build it, not even CI's."""
    try:
        installed("bigquery")
    except NotInstalled as line:
        pytest.skip(f"{line}, a quarter of an hour; no build server has to")
    from servers.bigquery import BigQueryEmulator

    yield from shared(run_folder, "bigquery", BigQueryEmulator)


@pytest.fixture(scope="session")
def elasticsearch(run_folder: Path) -> "Iterator[ElasticsearchServer]":
    """An Elasticsearch node, shared: name indices for the test."""
    need("elasticsearch")
    from servers.search import ElasticsearchServer

    yield from shared(run_folder, "elasticsearch", ElasticsearchServer)


@pytest.fixture(scope="session")
def opensearch(run_folder: Path) -> "Iterator[OpenSearchServer]":
    """An OpenSearch node, shared: name indices for the test."""
    need("opensearch")
    from servers.search import OpenSearchServer

    yield from shared(run_folder, "opensearch", OpenSearchServer)


@pytest.fixture(scope="session")
def prism() -> list[str]:
    """The pipeline options that run a pipeline on Prism."""
    need("prism")
    from servers.prism import prism_arguments

    return prism_arguments()
