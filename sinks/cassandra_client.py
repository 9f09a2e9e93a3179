"""The way to a Cassandra cluster: the URL, settings and secrets, and one line for what goes wrong."""

import logging
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from queues.server_secrets import secret, warn_of_clear_text
from sinks import alerts
from sinks.blocks import Unavailable
from sinks.outputs import SinkUrl
from transforms.records import InputError

USERNAME, PASSWORD = "FLOWBEAM_CASSANDRA_USERNAME", "FLOWBEAM_CASSANDRA_PASSWORD"
"""Environment variables with the credentials; `queues.server_secrets` says where else they may be."""

SETTINGS = ("ttl_days", "window_days", "consistency", "datacenter", "concurrency", "security", "ca", "verify")

_CONSISTENCIES = ("LOCAL_QUORUM", "LOCAL_ONE", "ONE", "QUORUM", "ALL", "TWO", "THREE", "EACH_QUORUM")
_CONNECT_S, _ANSWER_S = 10.0, 20.0
_TTL_DAYS_MOST = 20 * 365  # Cassandra's own limit is 20 years


class Place(NamedTuple):
    """A keyspace, the way to it, and how it is written: what a URL says, without secrets.

    Attributes:
        named: What messages call it.
        hosts: Where to ask for the cluster.
        port: The port of all nodes.
        keyspace: Its name.
        ttl_s: So long rows live; 0 for ever, or as long as their table says.
        window_days: Rows written for times so close together are compacted together.
        consistency: Which replicas must have a row.
        datacenter: Whose nodes are asked; empty for that of the first node that answers.
        tls: Whether connections are encrypted.
        authority: PEM file of who signed the nodes' certificates; empty for the system's.
        names_checked: Certificates must name the nodes.
        concurrency: Statements under way at a time.
    """

    named: str
    hosts: tuple[str, ...]
    port: int
    keyspace: str
    ttl_s: int
    window_days: int
    consistency: str
    datacenter: str
    tls: bool
    authority: str
    names_checked: bool
    concurrency: int


def place_of(url: SinkUrl) -> Place:
    """What the URL says.

    Raises:
        InputError: It is no such URL, or a setting is wrong.
    """
    if "@" in url.path:
        raise InputError(f"{url.scheme}: a URL must not carry a password; set {USERNAME} and {PASSWORD}")
    match = re.fullmatch(r"//([\w.,-]+)(?::(\d{1,5}))?/([A-Za-z]\w{0,47})/?", url.path, re.ASCII)
    if match is None:
        raise InputError(f"{url}: write cassandra://HOST[,HOST][:PORT]/KEYSPACE")
    url.check_parameters(*SETTINGS)
    given = url.parameters
    consistency = given.get("consistency", _CONSISTENCIES[0]).upper()
    if consistency not in _CONSISTENCIES:
        raise InputError(f"{url}: consistency={consistency} is not one of {', '.join(_CONSISTENCIES)}")
    for name, values in (("security", ("plaintext", "tls")), ("verify", ("host", "ca"))):
        if given.get(name, values[0]) not in values:
            raise InputError(f"{url}: {name}={given[name]} is not one of {', '.join(values)}")
    if "ca" in given and not os.access(os.path.expanduser(given["ca"]), os.R_OK):
        raise InputError(f"{url}: ca={given['ca']} cannot be read")
    return Place(
        str(url),
        tuple(match[1].split(",")),
        int(match[2] or 9042),
        match[3].lower(),
        round(86_400 * alerts.number(url, "ttl_days", 0.0, 0.0, _TTL_DAYS_MOST)),
        int(alerts.number(url, "window_days", 1, 1, 3650)),
        consistency,
        given.get("datacenter", ""),
        given.get("security") == "tls" or "ca" in given,
        given.get("ca", ""),
        given.get("verify") != "ca",
        int(alerts.number(url, "concurrency", 32, 1, 2000)),
    )


def connected(place: Place, with_keyspace: bool = True) -> Any:
    """A session of the driver; `session.cluster.shutdown()` ends it.

    Raises:
        InputError: The cluster does not let us in, or there is no such keyspace.
        Unavailable: Nobody answers.
    """
    try:
        import cassandra
        from cassandra import cluster as driver
        from cassandra import policies
    except ImportError as error:
        raise InputError(f"{place.named}: needs Cassandra's driver; pip install 'flowbeam[cassandra]'") from error
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)  # what matters comes as an error, too
    near = policies.DCAwareRoundRobinPolicy(place.datacenter)
    profile = driver.ExecutionProfile(
        policies.TokenAwarePolicy(near),
        consistency_level=getattr(cassandra.ConsistencyLevel, place.consistency),
        request_timeout=_ANSWER_S,
    )
    cluster = driver.Cluster(
        list(place.hosts),
        place.port,
        protocol_version=4,  # of Cassandra 2.2 and later
        auth_provider=_credentials(place),
        ssl_context=_tls(place),
        execution_profiles={driver.EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=_CONNECT_S,
        control_connection_timeout=_CONNECT_S,
        reconnection_policy=policies.ConstantReconnectionPolicy(1.0, None),
    )
    try:
        with plain_errors(place):
            session = cluster.connect()
            if with_keyspace:
                session.set_keyspace(place.keyspace)
            return session
    except BaseException:
        cluster.shutdown()
        raise


def _credentials(place: Place) -> Any:
    from cassandra.auth import PlainTextAuthProvider

    user, password = secret(place.named, USERNAME), secret(place.named, PASSWORD)
    if (user is None) != (password is None):
        raise InputError(f"{place.named}: set {USERNAME} and {PASSWORD}, both or none")
    if user is None:
        return None
    if not place.tls:
        warn_of_clear_text(place.named, place.hosts, "add security=tls, or ca=FILE")
    return PlainTextAuthProvider(user, password)


def _tls(place: Place) -> ssl.SSLContext | None:
    if not place.tls:
        return None
    context = ssl.create_default_context()
    if place.authority:
        try:
            context.load_verify_locations(os.path.expanduser(place.authority))
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{place.named}: ca={place.authority} is no PEM file of certificates") from error
    context.check_hostname = place.names_checked
    return context


@contextmanager
def plain_errors(place: Place) -> Iterator[None]:
    """Turns errors of the driver into those of `BlockWriter`.

    Raises:
        InputError: Waiting does not help.
        Unavailable: It may.
    """
    import cassandra
    from cassandra.cluster import NoHostAvailable
    from cassandra.connection import ConnectionException
    from cassandra.protocol import ErrorMessage

    try:
        yield
    except NoHostAvailable as error:
        of_hosts = error.errors.values() if isinstance(error.errors, dict) else ()
        raise_plain(place, next(iter(of_hosts), error))
    except (cassandra.DriverException, ErrorMessage, ConnectionException, OSError) as error:
        raise_plain(place, error)


def raise_plain(place: Place, error: BaseException) -> NoReturn:
    """Raises what `plain_errors` makes of an error."""
    import cassandra
    from cassandra.protocol import RequestValidationException

    text = text_of(error)
    if "Unable to perform auth" in text:  # the nodes that know users and rights are away
        raise Unavailable(f"{place.named}: {text}") from error
    if isinstance(error, cassandra.AuthenticationFailed):
        raise InputError(
            f"{place.named}: the cluster does not take the credentials ({text}); set {USERNAME} and {PASSWORD}"
        ) from error
    if isinstance(error, cassandra.Unauthorized):
        remedy = f"GRANT SELECT, MODIFY, CREATE, ALTER ON KEYSPACE {place.keyspace}"
        raise InputError(f"{place.named}: no permission ({text}); {remedy}") from error
    if "[SSL: " in text:  # the driver makes another kind of error of it
        raise InputError(f"{place.named}: no TLS connection ({text}); name the authority with ca=FILE") from error
    if isinstance(error, (cassandra.RequestValidationException, RequestValidationException)):
        if "does not exist" in text and "eyspace" in text:
            raise InputError(
                f"{place.named}: no keyspace {place.keyspace}; make it with python -m sinks.cassandra --setup URL"
            ) from error
        raise InputError(f"{place.named}: {text}") from error
    raise Unavailable(f"{place.named}: {text}") from error


def text_of(error: BaseException) -> str:
    """The cluster's own words, on one line."""
    text = str(getattr(error, "message", None) or getattr(error, "strerror", None) or error)
    quoted = re.search(r'message="([^"]*)"', text)
    text = quoted[1] if quoted else text
    return text.strip().partition("\n")[0].removesuffix(".")[:300]
