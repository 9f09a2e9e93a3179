"""What a Kafka URL means, where secrets come from, and what a person is told; without a broker."""

import builtins

import pytest
from confluent_kafka import KafkaError

import queues
from queues.kafka_client import Troubles, client_settings, facts_of, topic_of
from transforms.records import InputError

PLAIN = "//one:9092,two/flow.packets"


@pytest.mark.parametrize(
    ("rest", "brokers", "name", "settings"),
    [
        ("//b/t", "b", "t", {}),
        ("//b:9092/t", "b:9092", "t", {}),
        ("//10.0.0.1:1,[::1]:2/a.b_c-d/", "10.0.0.1:1,[::1]:2", "a.b_c-d", {}),
        ("//b/t?security=ssl&group=mine", "b", "t", {"security": "ssl", "group": "mine"}),
    ],
)
def test_urls(rest, brokers, name, settings):
    topic = topic_of(rest, ("group",))
    assert topic[:3] == (brokers, name, settings)
    assert topic.url == f"kafka://{brokers}/{name}"


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("broker/topic", "write kafka://HOST:PORT/TOPIC"),
        ("//broker", "write kafka://HOST:PORT/TOPIC"),
        ("//broker/", "write kafka://HOST:PORT/TOPIC"),
        ("//broker/a/b", "write kafka://HOST:PORT/TOPIC"),
        ("//broker/topic name", "write kafka://HOST:PORT/TOPIC"),
        ("//a:1,/topic", "nothing is no broker"),
        ("//a:port/topic", "a:port is no broker"),
        ("//me:word@broker/topic", "must not carry a password; set FLOWBEAM_KAFKA_SASL_USERNAME"),
        ("//b/t?password=x", "password does not belong into a URL; set FLOWBEAM_KAFKA_SASL_PASSWORD"),
        ("//b/t?sasl.username=x", "sasl.username does not belong into a URL; set FLOWBEAM_KAFKA_SASL_USERNAME"),
        ("//b/t?secrurity=ssl", "unknown setting secrurity; there are security, mechanism, client_config"),
        ("//b/t?group=x", "unknown setting group"),
        ("//b/t?security=tls", "security tls is not one of plaintext, ssl, sasl_plaintext, sasl_ssl"),
        ("//b/t?mechanism=MD5", "mechanism MD5 is not one of PLAIN, SCRAM-SHA-256"),
    ],
)
def test_mistakes_in_urls(rest, line):
    """One line each, which never repeats a password."""
    with pytest.raises(InputError) as error:
        topic_of(rest)
    assert line in str(error.value)
    assert "word@" not in str(error.value)


def test_settings_come_from_file_environment_and_url(tmp_path, monkeypatch):
    """The environment is over the file, so that secrets need not be in one; the URL is over both."""
    path = tmp_path / "client.properties"
    path.write_text("# ours\n\nssl.ca.location = /etc/a=b.pem\nsasl.password=file\nsecurity.protocol=ssl\n")
    monkeypatch.setenv("FLOWBEAM_KAFKA_SASL_PASSWORD", "environment")
    settings = client_settings(topic_of(f"{PLAIN}?client_config={path}&security=sasl_ssl"))
    assert settings["ssl.ca.location"] == "/etc/a=b.pem"
    assert settings["sasl.password"] == "environment"
    assert settings["security.protocol"] == "sasl_ssl"
    assert settings["sasl.mechanisms"] == "PLAIN"
    assert settings["bootstrap.servers"] == "one:9092,two"


@pytest.mark.parametrize(
    ("settings", "rest", "mechanism"),
    [
        ({}, "", "PLAIN"),
        ({"SASL_MECHANISM": "SCRAM-SHA-256"}, "", "SCRAM-SHA-256"),
        ({"SASL_MECHANISMS": "SCRAM-SHA-256"}, "", "SCRAM-SHA-256"),
        ({"SASL_MECHANISM": "SCRAM-SHA-256"}, "?mechanism=GSSAPI", "GSSAPI"),
    ],
)
def test_the_mechanism(monkeypatch, settings, rest, mechanism):
    for name, value in settings.items():
        monkeypatch.setenv(f"FLOWBEAM_KAFKA_{name}", value)
    found = client_settings(topic_of(PLAIN + rest))
    assert found["sasl.mechanisms"] == mechanism
    assert "sasl.mechanism" not in found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "cannot be read: No such file or directory"),
        ("just words\n", "line 1 is not NAME=VALUE"),
        ("\nenable.idempotence=false\n", "enable.idempotence cannot be chosen; remove it from"),
        ("group.id=x\n", "group.id cannot be chosen"),
        ("no.such.setting=1\n", 'No such configuration property: "no.such.setting"; look at client_config'),
    ],
    ids=["missing", "words", "ours", "group", "unknown"],
)
def test_mistakes_in_client_config(tmp_path, text, line):
    path = tmp_path / "client.properties"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"^[^\n]+$") as error:
        facts_of(topic_of(f"{PLAIN}?client_config={path}"))
    assert line in str(error.value)


def test_without_the_client(monkeypatch):
    """It is an extra, and its name is told."""

    def without(name, *rest, found=builtins.__import__):
        if name.startswith("confluent_kafka"):
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs the Kafka client; pip install 'flowbeam\[kafka\]'"):
        queues.open_live("kafka://broker/topic")


def test_a_topic_is_no_bounded_input():
    with pytest.raises(InputError, match="kafka://b/t: has no end; add --streaming, and --stop_at_end"):
        queues.open_reader("kafka://b/t")


def test_an_unknown_compression():
    with pytest.raises(InputError, match="compression lzma is not one of lz4, zstd"):
        queues.open_live("kafka://b/t?compression=lzma")


@pytest.mark.parametrize(
    "aside", ["", " (after 3ms in state CONNECT)", " (after 0ms in state CONNECT, 5 identical error(s) suppressed)"]
)
def test_what_a_client_says_is_told_without_asides(aside):
    """The first error is the reason of the second, which says that no broker is left."""
    troubles = Troubles(topic_of("//b:9/t", ()))
    troubles(KafkaError(KafkaError._TRANSPORT, f"b:9/1: Connect to ipv4#10.0.0.1:9 failed: Connection refused{aside}"))
    assert troubles.line is None
    troubles(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert troubles.line is not None
    assert "no broker answers (Connect to ipv4#10.0.0.1:9 failed: Connection refused);" in troubles.line
