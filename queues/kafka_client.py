"""What clients of Kafka share: the URL, settings and secrets, what a topic is like, one line for what goes wrong."""

import os
import re
import time
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl

from queues import server_secrets
from transforms.records import InputError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

ENVIRONMENT = "FLOWBEAM_KAFKA_"
"""Begins the names of environment variables that are client settings: `FLOWBEAM_KAFKA_SASL_PASSWORD`."""

_IN_FILE = re.compile(rf"(_(?:USERNAME|PASSWORD|SECRET|PEM)){server_secrets.BEHIND}$")
"""Ends the names of variables that say where a secret is: other settings of the client are files, too."""

PATIENCE_S = 10.0
"""So long may brokers take to answer when a topic is opened."""

MESSAGE_OCTETS = 1_048_588
"""Kafka's own limit of a message, where a topic's is not known (`max.message.bytes`)."""

_SECURITY = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")
_CONNECTION = ("security", "mechanism", "client_config")
_OURS = {
    "acks", "auto.offset.reset", "bootstrap.servers", "delivery.timeout.ms", "enable.auto.commit", "enable.idempotence",
    "enable.partition.eof", "group.id", "max.in.flight", "max.in.flight.requests.per.connection",
    "message.send.max.retries", "message.timeout.ms", "metadata.broker.list", "request.required.acks", "retries",
}  # fmt: skip
"""Client settings on which order and completeness rest."""


class Topic(NamedTuple):
    """A topic and the way to it: what a URL says, without secrets.

    Attributes:
        brokers: `HOST:PORT`, separated by commas.
        name: Name of the topic.
        settings: Settings of the URL.
        secrets: Where secrets are, as `server_secrets.references` told where the URL was read.
    """

    brokers: str
    name: str
    settings: dict[str, str]
    secrets: dict[str, str]

    @property
    def url(self) -> str:
        """What messages call it."""
        return f"kafka://{self.brokers}/{self.name}"


class TopicFacts(NamedTuple):
    """What the brokers say of a topic.

    Attributes:
        partitions: Their number.
        message_octets_most: Its largest message.
        has_receive_time: Messages bear the time at which the broker got them; None if we may not know.
    """

    partitions: int
    message_octets_most: int
    has_receive_time: bool | None


def topic_of(rest: str, settings: Collection[str] = ()) -> Topic:
    """The topic of `kafka:` + `rest`.

    Args:
        rest: The URL without scheme: `//HOST:PORT[,HOST:PORT]/TOPIC[?SETTING=VALUE&...]`.
        settings: Settings that are allowed besides those of the connection.

    Raises:
        InputError: It is no such URL, or has settings that are unknown or do not belong there.
    """
    address, _, query = rest.partition("?")
    match = re.fullmatch(r"//([^/@]+)/([A-Za-z0-9._-]{1,249})/?", address)
    if "@" in address:
        raise InputError(f"kafka: a URL must not carry a password; set {ENVIRONMENT}SASL_USERNAME and _SASL_PASSWORD")
    if match is None:
        raise InputError(f"kafka:{address}: write kafka://HOST:PORT/TOPIC, more brokers separated by commas")
    brokers, name = match.groups()
    for broker in brokers.split(","):
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?", broker):
            raise InputError(f"kafka:{address}: {broker or 'nothing'} is no broker; write HOST:PORT")
    topic = Topic(brokers, name, dict(parse_qsl(query, keep_blank_values=True)), server_secrets.references())
    allowed = (*_CONNECTION, *settings)
    for setting, value in topic.settings.items():
        if re.search("password|secret|token|username", setting):
            variable = ENVIRONMENT + "SASL_" + ("USERNAME" if "username" in setting else "PASSWORD")
            raise InputError(f"{topic.url}: {setting} does not belong into a URL; set {variable}")
        if setting not in allowed:
            raise InputError(f"{topic.url}: unknown setting {setting}; there are {', '.join(allowed)}")
        for one, values in (("security", _SECURITY), ("mechanism", _MECHANISMS)):
            if setting == one and value not in values:
                raise InputError(f"{topic.url}: {one} {value} is not one of {', '.join(values)}")
    return topic


def client_settings(topic: Topic) -> dict[str, Any]:
    """The settings of any client of the topic: ours, those of `client_config`, the environment's, and the URL's.

    Raises:
        InputError: `client_config` cannot be read, or has what is not to be set.
    """
    found: dict[str, str] = {}
    path = topic.settings.get("client_config")
    if path is not None:
        found.update(_settings_in(path))
    server_secrets.refer(topic.secrets)
    for name in {_IN_FILE.sub(r"\1", variable) for variable in os.environ if variable.startswith(ENVIRONMENT)}:
        found[name.removeprefix(ENVIRONMENT).lower().replace("_", ".")] = server_secrets.secret(topic.url, name) or ""
    for setting in found:
        if setting in _OURS:
            raise InputError(f"{topic.url}: {setting} cannot be chosen; remove it from {path or 'the environment'}")
    if "security" in topic.settings:
        found["security.protocol"] = topic.settings["security"]
    mechanism = found.pop("sasl.mechanism", "PLAIN")  # the library's other name for it
    found["sasl.mechanisms"] = topic.settings.get("mechanism", found.get("sasl.mechanisms", mechanism))
    return {
        "log_level": 0,  # what matters comes as an error, and goes through our lines
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        **found,
        "bootstrap.servers": topic.brokers,
    }


def library(topic: Topic) -> ModuleType:
    """The client library.

    Raises:
        InputError: It is not installed.
    """
    try:
        import confluent_kafka.admin
    except ImportError as error:
        raise InputError(f"{topic.url}: needs the Kafka client; pip install 'flowbeam[kafka]'") from error
    return confluent_kafka


def made_client(topic: Topic, kind: str, settings: dict[str, Any]) -> Any:
    """A `Consumer` or `Producer`, with `client_settings` and these.

    Raises:
        InputError: A setting is not known, or not possible.
    """
    kafka = library(topic)
    known = client_settings(topic)
    try:
        return getattr(kafka, kind)({**known, **settings})
    except kafka.KafkaException as error:
        raise InputError(f"{topic.url}: {_text_of(error.args[0])}; look at client_config and {ENVIRONMENT}*") from error


class Troubles:
    """What a client complained of last: its `error_cb`.

    Attributes:
        line: What is wrong and what to do, if it is still so as far as known; None while all is well.
        lasting: Waiting will not help.
    """

    def __init__(self, topic: Topic) -> None:
        self.line: str | None = None
        self.lasting = self._down = False
        self._topic, self._reason = topic, ""

    def __call__(self, error: "KafkaError") -> None:
        """Takes note of an error; one lost connection alone is nothing to complain of."""
        line = line_of(self._topic, error)
        if line is not None:
            self.line, self.lasting = line, True
        elif error.code() == library(self._topic).KafkaError._ALL_BROKERS_DOWN:
            self._down = True
        else:
            self._reason = f" ({_text_of(error)})"
        if self._down and not self.lasting:
            self.line = f"{self._topic.url}: no broker answers{self._reason}; see that it is up and the address right"

    def clear(self) -> None:
        """All is well again."""
        self.line, self.lasting, self._down, self._reason = None, False, False, ""


def line_of(topic: Topic, error: "KafkaError") -> str | None:
    """The line for an error that waiting does not help; None for others."""
    codes = library(topic).KafkaError
    code, text = error.code(), _text_of(error)
    if code in (codes._AUTHENTICATION, codes.SASL_AUTHENTICATION_FAILED):
        remedy = f"set {ENVIRONMENT}SASL_USERNAME and {ENVIRONMENT}SASL_PASSWORD, or name the right mechanism"
        return f"{topic.url}: the broker does not take the credentials ({text}); {remedy}"
    if code == codes._SSL:
        return f"{topic.url}: no TLS connection ({text}); name the authority with ssl.ca.location in client_config"
    if code == codes._RESOLVE:
        return f"{topic.url}: no such host ({text})"
    if code in (codes.TOPIC_AUTHORIZATION_FAILED, codes.CLUSTER_AUTHORIZATION_FAILED):
        return f"{topic.url}: no permission for this topic ({text}); give it to the user with kafka-acls"
    if code == codes.GROUP_AUTHORIZATION_FAILED:
        return f"{topic.url}: no permission for the consumer group ({text}); choose another with group="
    if code in (codes.UNKNOWN_TOPIC_OR_PART, codes._UNKNOWN_TOPIC, codes._UNKNOWN_PARTITION):
        settings = f"--topic {topic.name} --partitions 4 --config message.timestamp.type=LogAppendTime"
        return f"{topic.url}: no such topic; make it with kafka-topics --create {settings}"
    return None


def facts_of(topic: Topic) -> TopicFacts:
    """Asks the brokers; waits for them at most `PATIENCE_S`.

    Raises:
        InputError: They do not answer, there is no such topic, or it is not ours to use.
    """
    troubles = Troubles(topic)
    client = made_client(topic, "Consumer", {"group.id": "flowbeam", "error_cb": troubles})
    try:
        partitions = _partitions(topic, client, troubles, PATIENCE_S)
    finally:
        client.close()
    settings = _topic_settings(topic)
    kind = settings.get("message.timestamp.type")
    octets = int(settings.get("max.message.bytes", MESSAGE_OCTETS))
    return TopicFacts(partitions, octets, None if kind is None else kind == "LogAppendTime")


def partitions_of(topic: Topic, consumer: Any, patience_s: float) -> int | None:
    """The number of partitions as of now; None if no broker answers in time.

    Raises:
        InputError: The topic is gone.
    """
    kafka = library(topic)
    try:
        found = consumer.list_topics(topic.name, timeout=patience_s).topics[topic.name]
    except kafka.KafkaException:
        return None
    if found.error is not None:
        _refuse(topic, found.error)
    return len(found.partitions)


def _partitions(topic: Topic, consumer: Any, troubles: Troubles, patience_s: float) -> int:
    kafka = library(topic)
    end_s = time.monotonic() + patience_s
    while True:
        try:
            found = consumer.list_topics(topic.name, timeout=1.0).topics[topic.name]
        except kafka.KafkaException as error:
            consumer.poll(0)  # tells `troubles` why
            if troubles.lasting or time.monotonic() > end_s:
                reason = _text_of(error.args[0])
                raise InputError(troubles.line or f"{topic.url}: no broker answers ({reason})") from error
            continue
        if found.error is None and found.partitions:
            return len(found.partitions)
        fleeting = found.error is None or found.error.code() == kafka.KafkaError.LEADER_NOT_AVAILABLE
        if not fleeting or time.monotonic() > end_s:
            _refuse(topic, found.error)
        time.sleep(0.1)


def _refuse(topic: Topic, error: "KafkaError | None") -> NoReturn:
    line = None if error is None else line_of(topic, error)
    raise InputError(line or f"{topic.url}: cannot be used ({error})")


def _topic_settings(topic: Topic) -> dict[str, str]:
    """The settings of the topic, as far as we may know them."""
    kafka = library(topic)
    resource = kafka.admin.ConfigResource(kafka.admin.ResourceType.TOPIC, topic.name)
    client = kafka.admin.AdminClient(client_settings(topic))
    try:
        entries = client.describe_configs([resource])[resource].result(PATIENCE_S)
    except kafka.KafkaException:  # no permission to describe: it can be used all the same
        return {}
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def _settings_in(path: str) -> dict[str, str]:
    """A file of client settings, `name=value` each, with comments after `#` at the beginning of a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"client_config {path}: cannot be read: {reason}") from error
    settings = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(("#", "!")):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise InputError(f"client_config {path}: line {number} is not NAME=VALUE")
        settings[name.strip()] = value.strip()
    return settings


def _text_of(error: "KafkaError") -> str:
    """What the library says, without what only helps its authors."""
    text = re.sub(r" \(after (?:\(s\)|[^)])*\)( \(_\w+\))?", "", error.str())
    text = re.sub(r"^(\w+://)?[^ ]+: (?=[A-Z])", "", text).strip()
    return text.removesuffix(".").split("\n")[0][:300]
