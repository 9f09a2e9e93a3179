"""Secrets: of the environment, of files, of Secret Manager; and how workers come to know where they are."""

import base64
import json
import os
import re
import threading
from collections import deque
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from apache_beam.internal import pickler
from block_testing import StoreWriter
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipelines import flows
from queues import kafka_client, server_secrets
from sinks import cassandra_client, search_client
from sinks.blocks import WriteBlocks
from sinks.outputs import SinkContext, SinkUrl, parse_url
from transforms.records import InputError

NAME = "FLOWBEAM_STORE_PASSWORD"
ACCOUNT = "pipeline@net.example"
PLACE = "projects/net/secrets/store-password"


class SecretManager:
    """A stand-in for what Google answers to who signs what he asks.

    Attributes:
        secrets: Octets of each version, by its name.
        answers: What the next calls get instead: a status, and a body.
        asked: The names that were asked for, in order.
    """

    def __init__(self):
        manager = self
        self.secrets, self.answers, self.asked = {}, deque(), []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                kind, _, token = self.headers["Authorization"].partition(" ")
                claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
                assert (kind, claims["iss"]) == ("Bearer", ACCOUNT)
                name = self.path.removeprefix("/").removesuffix(":access")
                manager.asked.append(name)
                if manager.answers:
                    self._tell(*manager.answers.popleft())
                elif name in manager.secrets:
                    data = base64.b64encode(manager.secrets[name]).decode()
                    self._tell(200, json.dumps({"name": name, "payload": {"data": data}}))
                else:
                    self._tell(404, json.dumps({"error": {"code": 404, "message": f"Secret [{name}] not found."}}))

            def _tell(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def key():
    """A private key, as files of service accounts have one."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.private_bytes(*form).decode()


@pytest.fixture
def manager(key, tmp_path, monkeypatch):
    """Secret Manager, and an account that it knows."""
    manager = SecretManager()
    account = {"type": "service_account", "client_email": ACCOUNT, "token_uri": manager.url, "private_key": key}
    account |= {"project_id": "net", "universe_domain": "net.example"}  # where tokens need no other server
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setattr(server_secrets, "ENDPOINT", manager.url + "/{region}{name}:access")
    yield manager
    manager.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a test lets the process know is forgotten after it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def refer(place, name=NAME):
    os.environ[name + server_secrets.BEHIND] = place


def test_a_secret_is_in_the_environment_or_in_a_file(tmp_path):
    """The file comes first."""
    assert server_secrets.secret("store:a", NAME) is None
    os.environ[NAME] = "here"
    assert server_secrets.secret("store:a", NAME) == "here"
    (tmp_path / "secret").write_text(" Zürich\n", encoding="utf-8")
    refer(str(tmp_path / "secret"))
    assert server_secrets.secret("store:a", NAME) == "Zürich"
    refer(str(tmp_path))
    with pytest.raises(InputError, match=r"^store:a: FLOWBEAM_STORE_PASSWORD_FILE=.*: cannot be read: Is a directory$"):
        server_secrets.secret("store:a", NAME)


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        (PLACE, f"{PLACE}/versions/latest"),
        (f"{PLACE}/versions/7", f"{PLACE}/versions/7"),
        ("projects/net/locations/europe-west1/secrets/a", ".europe-west1.rep"),
    ],
    ids=["latest", "a-version", "of-a-region"],
)
def test_a_secret_of_secret_manager(manager, place, asked):
    """It is asked for with the account's token; a secret of a region is asked for there."""
    name = place if "/versions/" in place else f"{place}/versions/latest"
    asked = asked + name if asked.startswith(".") else asked
    manager.secrets[asked] = "Zürich\n".encode()
    refer(f"secret://{place}")
    assert server_secrets.secret("store:a", NAME) == "Zürich"
    assert manager.asked == [asked]


def test_secret_manager_may_be_busy(manager):
    manager.secrets[f"{PLACE}/versions/latest"] = b"late"
    manager.answers.append((503, ""))
    refer(f"secret://{PLACE}")
    assert server_secrets.secret("store:a", NAME) == "late"
    assert len(manager.asked) == 2


@pytest.mark.parametrize(
    ("place", "answer", "line"),
    [
        (PLACE, None, "404: Secret [projects/net/secrets/store-password/versions/latest] not found; make it, and add"),
        (PLACE, (403, '{"error": {"message": "Permission denied."}}'), "403: Permission denied; give the account "),
        (PLACE, (200, "<html>"), "200: no answer that can be read; try again later"),
        ("projects/net/store-password", None, "is no secret; write secret://projects/PROJECT/secrets/SECRET/versions"),
    ],
    ids=["missing", "not-ours", "another-server", "no-name"],
)
def test_what_cannot_be_had_is_one_line(manager, place, answer, line):
    manager.answers.extend(filter(None, [answer]))
    refer(f"secret://{place}")
    with pytest.raises(InputError, match=re.escape(f"store:a: {NAME}_FILE=secret://{place}: {line}")):
        server_secrets.secret("store:a", NAME)


def test_nobody_answers(manager, monkeypatch):
    monkeypatch.setattr(server_secrets, "_TRIES", 1)
    monkeypatch.setattr(server_secrets, "ENDPOINT", "http://127.0.0.1:1/{region}{name}")
    refer(f"secret://{PLACE}")
    with pytest.raises(InputError, match="cannot ask Secret Manager: ") as error:
        server_secrets.secret("store:a", NAME)
    assert "\n" not in str(error.value)


def test_without_an_account_is_one_line(manager):
    os.environ |= {"GOOGLE_APPLICATION_CREDENTIALS": "nowhere.json"}
    refer(f"secret://{PLACE}")
    with pytest.raises(InputError, match="no Google credentials: run `gcloud auth application-default login`"):
        server_secrets.secret("store:a", NAME)


def on_a_worker(value):
    """The value as a worker gets it, whose environment nobody has set."""
    sent = pickler.dumps(value)
    for name in server_secrets.references():
        del os.environ[name]
    return pickler.loads(sent)


def test_workers_are_told_where_secrets_are(tmp_path):
    """With the step that writes, whatever the store; secrets themselves and names of files stay here."""
    refer(f"secret://{PLACE}")
    os.environ |= {"FLOWBEAM_OTHER_KEY": "plain", "FLOWBEAM_OTHER_PASSWORD_FILE": "/run/secrets/other"}
    url = SinkUrl("store", str(tmp_path), {})
    step = on_a_worker(WriteBlocks(url, SinkContext((), None, "job"), partial(StoreWriter, str(tmp_path))))
    assert step.secrets == {NAME + "_FILE": f"secret://{PLACE}"}
    assert NAME + "_FILE" not in os.environ
    step.sender()
    assert os.environ[NAME + "_FILE"] == f"secret://{PLACE}"


def test_clients_of_kafka_have_them_too(manager, tmp_path):
    """On workers that read and write; a file holds the user's name here, and is no setting of the client."""
    manager.secrets[f"{PLACE}/versions/latest"] = b"of-the-broker"
    (tmp_path / "user").write_text("north\n")
    refer(f"secret://{PLACE}", "FLOWBEAM_KAFKA_SASL_PASSWORD")
    refer(str(tmp_path / "user"), "FLOWBEAM_KAFKA_SASL_USERNAME")
    topic = on_a_worker(kafka_client.topic_of("//broker:9092/packets"))
    found = kafka_client.client_settings(topic)
    assert {name: value for name, value in found.items() if name.startswith("sasl.")} == {
        "sasl.username": "north", "sasl.password": "of-the-broker", "sasl.mechanisms": "PLAIN"
    }  # fmt: skip


@pytest.mark.parametrize("word", ["STORE_PASSWORD=projects/p/secrets/s", f"{NAME}=s3cret", NAME], ids=repr)
def test_a_wrong_option_is_one_line(word, capsys):
    assert flows.main([f"--secret={word}", "--check"]) == 2
    told = f"--secret {word}: write FLOWBEAM_NAME=projects/PROJECT/secrets/SECRET/versions/VERSION\n"
    assert capsys.readouterr().err.endswith(told)


def test_the_main_job_says_which_secret_it_cannot_have(manager, capsys):
    """Before anything is read: the option is as good as the variable."""
    options = [f"--secret=FLOWBEAM_ELASTICSEARCH_API_KEY={PLACE}", "--output=elasticsearch://localhost:1/flows"]
    assert flows.main([*options, "--check"]) == 2
    told = capsys.readouterr().err
    assert f"FLOWBEAM_ELASTICSEARCH_API_KEY_FILE=secret://{PLACE}: 404: Secret [" in told
    assert manager.asked == [f"{PLACE}/versions/latest"]


@pytest.mark.parametrize(
    ("output", "is_told"),
    [
        ("elasticsearch://search.example/flows", True),
        ("elasticsearch://127.0.0.1,search.example:9200/flows", True),
        ("elasticsearch+https://search.example/flows", False),
        ("opensearch://search.example/flows", True),
        ("opensearch://[::1]:9200,localhost/flows", False),
        ("cassandra://10.0.0.7,10.0.0.8/flows", True),
        ("cassandra://10.0.0.7/flows?security=tls", False),
        ("cassandra://127.0.0.1/flows", False),
    ],
)
def test_a_password_without_tls_is_told_once(output, is_told, monkeypatch, caplog):
    """Whoever forgot TLS learns it from the job; on the machine itself nobody listens."""
    url = parse_url(output)
    user = "USERNAME" if url.module == "cassandra" else "USER"
    for name in (user, "PASSWORD"):
        monkeypatch.setenv(f"FLOWBEAM_{url.module.upper()}_{name}", "secret-word")
    for _ in range(2):
        if url.module == "cassandra":
            assert cassandra_client._credentials(cassandra_client.place_of(url)) is not None
        else:
            assert search_client.credentials(search_client.parse_address(url))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.startswith(f"{url}: the password is sent unencrypted; ") for line in lines] == [True] * is_told
    assert "secret-word" not in caplog.text
