"""Talking to Elasticsearch and OpenSearch: addresses, credentials, requests, and what their answers mean."""

import base64
import json
import logging
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from queues.server_secrets import secret, warn_of_clear_text
from sinks.blocks import Unavailable
from sinks.outputs import SinkUrl
from transforms.records import InputError

PARAMETERS = ("ca", "replicas", "shards", "keep_days", "setup", "events")

REQUEST_S = 60.0
"""How long an answer may take."""

_PORT = 9200
INDEX_NAME = re.compile(r"(?![-_+.])[a-z0-9!$%&'()+.;=@\[\]^_`{}~-]{1,200}")
_PRODUCTS = {"elasticsearch": "Elasticsearch", "opensearch": "OpenSearch"}

Ask = Callable[[str, str, "bytes | None"], "Answer"]
"""A request: method, target, body."""


class Address(NamedTuple):
    """A server and an index on it, with the settings of the output.

    Attributes:
        url: The output.
        hosts: `http://host:port` of each node.
        name: What the names of the indices begin with.
        ca: File with the certificates that sign the server's; None for those of the system.
        replicas: Copies of each shard; None leaves it to the server.
        shards: Shards of a day.
        keep_days: Indices are deleted after so many days; None leaves them.
        setup: Whether the index template is made, and brought up to date.
        events: Whether events of sensors and what is noticed about a model go there, too.
    """

    url: SinkUrl
    hosts: tuple[str, ...]
    name: str
    ca: str | None
    replicas: int | None
    shards: int
    keep_days: int | None
    setup: bool
    events: bool

    @property
    def product(self) -> str:
        """Its name, for people."""
        return _PRODUCTS[self.url.module]

    @property
    def variables(self) -> str:
        """What the names of its environment variables begin with."""
        return f"FLOWBEAM_{self.url.module.upper()}_"


class Answer(NamedTuple):
    """What the server said: status, the parsed body, and how long it asks to wait."""

    status: int
    body: Any
    after_s: float = 0.0


def parse_address(url: SinkUrl) -> Address:
    """Takes `//host:port,host:port/index` and its parameters apart.

    Raises:
        InputError: One line with what is wrong.
    """
    url.check_parameters(*PARAMETERS)
    example = f"write {url.scheme}://HOST:{_PORT}/INDEX"
    hosts, _, index = url.path.removeprefix("//").partition("/")
    if not url.path.startswith("//") or not hosts or not index:
        raise InputError(f"{url}: names no server and index; {example}")
    if "@" in hosts:
        said = f"{url.scheme}://…@{hosts.rpartition('@')[2]}/{index}"
        raise InputError(
            f"{said}: a URL must not carry a password; set {_variables(url)}API_KEY or _USER and _PASSWORD"
        )
    if not INDEX_NAME.fullmatch(index):
        raise InputError(f"{url}: {index!r} is no name of an index: small letters, digits, - and _; {example}")
    secure = url.scheme.endswith("+https")
    given = url.parameters
    if "ca" in given and not secure:
        raise InputError(f"{url}: ca is for encrypted connections; write {url.module}+https://{hosts}/{index}")
    if "ca" in given and not os.access(given["ca"], os.R_OK):
        raise InputError(f"{url}: ca={given['ca']} is no file that can be read")
    for name in ("setup", "events"):
        if given.get(name, "yes") not in ("yes", "no"):
            raise InputError(f"{url}: {name}={given[name]}; it is yes or no")
    return Address(
        url,
        tuple(_host(url, host, secure) for host in hosts.split(",")),
        index,
        given.get("ca"),
        _whole(url, "replicas", 0),
        _whole(url, "shards", 1) or 1,
        _whole(url, "keep_days", 1),
        given.get("setup", "yes") == "yes",
        given.get("events", "yes") == "yes",
    )


def _host(url: SinkUrl, host: str, secure: bool) -> str:
    try:
        parts = urlsplit(f"{'https' if secure else 'http'}://{host}")
        name, port = parts.hostname, parts.port or _PORT
    except ValueError:
        name = port = None
    if not name or not re.fullmatch(r"[\w.-]+|[\da-fA-F:.]+", name):
        raise InputError(f"{url}: {host!r} is no HOST:PORT")
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"


def _whole(url: SinkUrl, name: str, least: int) -> int | None:
    text = url.parameters.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not least <= int(text) < 1_000_000:
        raise InputError(f"{url}: {name}={text}; give a whole number, {least} or more")
    return int(text)


def _variables(url: SinkUrl) -> str:
    return f"FLOWBEAM_{url.module.upper()}_"


class Server(Protocol):
    """A connection; `ask` raises `Unavailable` where there is none."""

    def ask(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """Sends a request; the answer may be an error of any status."""

    def close(self) -> None:
        """Gives the connection up."""


def connect(address: Address) -> Server:
    """Opens a connection, with the credentials of the environment.

    Raises:
        InputError: The client library is missing, or a setting of it makes no sense.
    """
    kind = _Elasticsearch if address.url.module == "elasticsearch" else _OpenSearch
    try:
        return kind(address)
    except ImportError as error:
        extra = address.url.module
        raise InputError(f"{address.url}: needs a library: pip install 'flowbeam[{extra}]' ({error.name})") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{address.url}: {error}") from error


def credentials(address: Address) -> dict[str, Any]:
    """The client's settings for signing in."""
    key, user, password = (
        secret(str(address.url), address.variables + name) for name in ("API_KEY", "USER", "PASSWORD")
    )
    if (key or user) and address.hosts[0].startswith("http:"):
        hosts = tuple(urlsplit(host).hostname or "" for host in address.hosts)
        warn_of_clear_text(str(address.url), hosts, f"write {address.url.module}+https://")
    if key:
        return {"api_key": key}
    return {"basic_auth": _basic(user, password or "")} if user else {}


def _basic(user: str, password: str) -> str:
    """User and password in UTF-8, as the servers read them: their clients take letters of ASCII or Latin-1 alone."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


class _Elasticsearch:
    """Elasticsearch, by its own client."""

    def __init__(self, address: Address) -> None:
        from elastic_transport import TlsError, TransportError
        from elasticsearch import Elasticsearch

        logging.getLogger("elastic_transport").setLevel(logging.ERROR)  # what fails is told once, by the step
        settings = credentials(address) | ({"ca_certs": address.ca} if address.ca else {})
        self._client = Elasticsearch(list(address.hosts), request_timeout=REQUEST_S, **settings)
        self._address = address
        self._lost, self._tls = TransportError, TlsError
        self._headers = dict(self._client._headers)

    def ask(self, method: str, target: str, body: bytes | None = None) -> Answer:
        headers = {**self._headers, "accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/x-ndjson" if "_bulk" in target else "application/json"
        try:
            answer = self._client.transport.perform_request(
                method, target, headers=headers, body=body, max_retries=0, request_timeout=REQUEST_S
            )
        except self._tls as error:
            raise Unavailable(untrusted(self._address, str(error.message))) from error
        except self._lost as error:
            raise Unavailable(short(str(error.message))) from error
        return Answer(answer.meta.status, answer.body, _seconds(answer.meta.headers.get("retry-after")))

    def close(self) -> None:
        self._client.close()


class _OpenSearch:
    """OpenSearch, by its own client."""

    def __init__(self, address: Address) -> None:
        from opensearchpy import ConnectionError as Lost
        from opensearchpy import OpenSearch, SSLError, TransportError

        logging.getLogger("opensearch").setLevel(logging.CRITICAL)
        given = credentials(address)
        settings: dict[str, Any] = {}
        for name, scheme in (("api_key", "ApiKey"), ("basic_auth", "Basic")):
            if name in given:
                settings["headers"] = {"authorization": f"{scheme} {given[name]}"}
        if address.ca:
            settings["ca_certs"] = address.ca
        self._client = OpenSearch(list(address.hosts), timeout=REQUEST_S, max_retries=0, **settings)
        self._address = address
        self._lost, self._tls, self._refused = Lost, SSLError, TransportError

    def ask(self, method: str, target: str, body: bytes | None = None) -> Answer:
        headers = {"content-type": "application/x-ndjson" if "_bulk" in target else "application/json"}
        try:
            return Answer(200, self._client.transport.perform_request(method, target, body=body, headers=headers))
        except self._tls as error:
            raise Unavailable(untrusted(self._address, str(error.info))) from error
        except self._lost as error:
            raise Unavailable(short(str(error.info))) from error
        except self._refused as error:
            return Answer(int(error.status_code), error.info)

    def close(self) -> None:
        self._client.close()


def untrusted(address: Address, reason: str) -> str:
    """What to say where no encrypted connection comes about."""
    if "WRONG_VERSION_NUMBER" in reason:
        return f"the server does not encrypt there; write {address.url.module}://, or the port where it does"
    return f"no trusted connection: {short(reason)}; name its certificate authority: '{address.url}?ca=FILE'"


def short(reason: str) -> str:
    """The words of a client's message that tell what happened, in one line."""
    reason = reason.partition("\n")[0]
    for known in ("Connection refused", "Connection reset by peer", "timed out", "Name or service not known"):
        if known.lower() in reason.lower():
            return known.lower()
    return re.sub(r"^<[^>]*>: ", "", reason).strip()[:300]


def reason_of(body: Any) -> str:
    """The server's own words for why it refused a request."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        causes = error.get("root_cause") or [error]
        words = (error.get("reason"), causes[0].get("reason"), (error.get("caused_by") or {}).get("reason"))
        return ": ".join(dict.fromkeys(word for word in words if word))[:600] or json.dumps(error)[:300]
    return str(error or body)[:300]


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdecimal() else 0.0
