"""`webhook:https://HOST/PATH`: alerts as JSON posts; or `webhook:env:NAME`, where the address itself is a secret.

    POST /PATH
    Content-Type: application/json
    Idempotency-Key: 5f0c…                  the same for the same alerts
    X-Flowbeam-Timestamp: 1795266000        seconds since the Unix epoch
    X-Flowbeam-Signature: sha256=…          HMAC-SHA256 of the timestamp, a full stop and the body, in hexadecimal

    {"alerts": [{"id": "5f0c…", "src_ip": "10.0.0.1", "predicted_class": "scan", "score": 0.97, …}, …]}

| setting | meaning |
|---|---|
| `window_s` | one alert of a source and class in so much of event time (300); 0: every one |
| `per_post` | alerts of a post, at most (100) |
| `posts_per_s` | posts a second, at most (10) |
| `timeout_s` | so long an answer may take (10) |
| `ca` | PEM file of who signed the receiver's certificate |
| `check` | `yes` (default): a job starts with a post without alerts; `no`: it does not |

The secret of signatures is FLOWBEAM_WEBHOOK_SECRET, and FLOWBEAM_WEBHOOK_AUTHORIZATION is the header `Authorization`;
`queues.server_secrets` says where else these may be. 408, 425, 429 and 5xx are tried again, as lost
connections are; what is refused otherwise is in the rejects. An alert may be posted again after a failure: `id` is
made of source, class and window and stays the same. Redirections are not followed.
"""

import functools
import hashlib
import hmac
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import apache_beam as beam
import pyarrow as pa

from queues.server_secrets import secret
from sinks import alerts
from sinks.alert_window import FirstAlerts, digests
from sinks.blocks import LEFT_OUT, Counted, Unavailable, WriteBlocks
from sinks.outputs import SinkContext, SinkUrl
from transforms.features import sets
from transforms.fields import COMMON
from transforms.records import InputError, Reject

SECRET, AUTHORIZATION = "FLOWBEAM_WEBHOOK_SECRET", "FLOWBEAM_WEBHOOK_AUTHORIZATION"

_AGAIN = (408, 425, 429)
_NEVER = {
    401: f"see that {AUTHORIZATION} and {SECRET} are right",
    403: f"see that {AUTHORIZATION} and {SECRET} are right",
    404: "see that the address is right",
    405: "see that the address is right",
    410: "see that the address is right",
}
"""Answers to a post without alerts by which it is clear that none with alerts will be taken, and what to do."""

_WAIT_MOST_S = 60.0
_SAID_OCTETS = 200
_COMMON = frozenset(field.name for field in COMMON)


class Receiver(NamedTuple):
    """Who gets the posts, and how.

    Attributes:
        named: What messages call it.
        address: Its URL; may be a secret.
        window_s: Of event time, for one alert of a source and class.
        per_post: Alerts of a post.
        posts_per_s: Posts a second.
        timeout_s: So long an answer may take.
        authority: PEM file; empty for the system's authorities.
        is_checked: Whether it gets a post without alerts at the start.
    """

    named: str
    address: str
    window_s: float
    per_post: int
    posts_per_s: float
    timeout_s: float
    authority: str
    is_checked: bool


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `webhook:https://HOST/PATH`.

    Raises:
        InputError: The URL or a setting is wrong, flows are not scored, or the receiver cannot be reached or takes no
            posts of ours.
    """
    receiver = receiver_of(url)
    alerts.check_columns(url, context.schema)
    try:
        _check(receiver)
    except Unavailable as error:
        raise InputError(f"{error}; see that it is up and the address right") from error
    return PostAlerts(url, context, receiver.window_s)


def opened(url: SinkUrl) -> "WebhookWriter":
    """The writer on a worker, which looks up what is secret itself: a job's graph has none of it."""
    return WebhookWriter(receiver_of(url))


def _check(receiver: Receiver) -> None:
    """Refuses a receiver that will take no post, before there is an alert."""
    writer = WebhookWriter(receiver)
    try:
        answer = writer.answer([]) if receiver.is_checked else None
    finally:
        writer.close()
    if answer is not None and answer.status in _NEVER:
        raise InputError(
            f"{receiver.named}: a post without alerts is answered {answer}; {_NEVER[answer.status]}, or leave this "
            "check out with check=no"
        )


class Answer(NamedTuple):
    """What a receiver said.

    Attributes:
        status: Of HTTP.
        said: The first line of the body.
        after_s: How long it asks to wait.
    """

    status: int
    said: str
    after_s: float

    def __str__(self) -> str:
        """Status and words."""
        return f"{self.status} {self.said}".strip()


class PostAlerts(WriteBlocks):
    """Posts the first alert of each source and class in a window.

    Input: record batches of scored flows. Output: what the receiver refused.

    Args:
        url: The output.
        context: Of the job.
        window_s: Of event time, for one alert of a source and class.
    """

    def __init__(self, url: SinkUrl, context: SinkContext, window_s: float) -> None:
        super().__init__(url, context, functools.partial(opened, url))
        self.window_s = window_s

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the steps that choose and post."""
        return super().expand(flows | "FirstAlerts" >> FirstAlerts("webhook", self.window_s))


class WebhookWriter:
    """Posts blocks of alerts over one connection, no faster than allowed.

    Args:
        receiver: Who gets them.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._secret, self._authorization = (secret(receiver.named, name) for name in (SECRET, AUTHORIZATION))
        self._connection: http.client.HTTPConnection | None = connected(receiver)
        self._next_s = 0.0

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject | Counted]:
        """As `BlockWriter` says."""
        found = alerts_of(alerts.chosen(flows), round(self._receiver.window_s * 1e9))  # resent are other flows, too
        yield Counted(LEFT_OUT, len(flows) - len(found))
        for first in range(0, len(found), self._receiver.per_post):
            part = found[first : first + self._receiver.per_post]
            reason = self._post(part)
            if reason is not None:
                for alert in part:
                    yield Reject("webhook", reason, self._receiver.named, None, _encoded(alert))

    def close(self) -> None:
        """Gives the connection up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def answer(self, part: Sequence[dict[str, Any]]) -> Answer:
        """Posts some alerts, or none, when it is time.

        Raises:
            Unavailable: There is no answer.
        """
        body = _encoded({"alerts": part})
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + 1 / self._receiver.posts_per_s
        target = urlsplit(self._receiver.address)
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        try:
            if self._connection is None:
                self._connection = connected(self._receiver)
            self._connection.request("POST", path, body, self._headers(part, body))
            answer = self._connection.getresponse()
            said = answer.read(_SAID_OCTETS)
            if answer.will_close or answer.read(1):
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable(f"{self._receiver.named}: {_reason_of(error)}") from error
        line = said.decode(errors="replace").strip().partition("\n")[0]
        return Answer(answer.status, line, _asked_for(answer.getheader("Retry-After")))

    def _post(self, part: Sequence[dict[str, Any]]) -> str | None:
        """Posts some alerts; why they were refused, if they were."""
        answer = self.answer(part)
        if 200 <= answer.status < 300:
            return None
        if answer.status in _AGAIN or answer.status >= 500:
            raise Unavailable(f"{self._receiver.named}: {answer}", answer.after_s)
        return f"refused with status {answer.status}"

    def _headers(self, part: Sequence[dict[str, Any]], body: bytes) -> dict[str, str]:
        key = hashlib.blake2b("".join(alert["id"] for alert in part).encode(), digest_size=16).hexdigest()
        now = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "flowbeam",
            "Idempotency-Key": key,
            "X-Flowbeam-Timestamp": now,
        }
        if self._secret is not None:
            signed = hmac.new(self._secret.encode(), now.encode() + b"." + body, hashlib.sha256)
            headers["X-Flowbeam-Signature"] = f"sha256={signed.hexdigest()}"
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        return headers


def alerts_of(flows: pa.RecordBatch, window_ns: int) -> list[dict[str, Any]]:
    """What a post says of each alert: its id, and every column that is no feature and has a value."""
    plain = [name for name in flows.schema.names if name in _COMMON or name not in sets.CANONICAL]
    flow_ids = [flow_id.hex() for flow_id in flows["flow_id"].to_pylist()]
    windows = (flows["flow_start_ns"].to_numpy() // window_ns).tolist() if window_ns else []
    ids = [
        hashlib.blake2b(who.tobytes() + str(window).encode(), digest_size=16).hexdigest()
        for who, window in zip(digests(flows), windows, strict=True)
    ] if window_ns else flow_ids  # fmt: skip
    rows = flows.select(plain).to_pylist()
    return [
        {"id": one, **{name: value for name, value in row.items() if value is not None}, "flow_id": flow_id}
        for one, row, flow_id in zip(ids, rows, flow_ids, strict=True)
    ]


def receiver_of(url: SinkUrl) -> Receiver:
    """What the URL says.

    Raises:
        InputError: It is no such URL, or a setting is wrong.
    """
    url.check_parameters("window_s", "per_post", "posts_per_s", "timeout_s", "ca", "check")
    address = url.path
    if address.startswith("env:"):
        address = secret(str(url), address[4:]) or ""
        if not address:
            raise InputError(f"{url}: there is no environment variable {url.path[4:]}; set it to the address")
    target = urlsplit(address)
    if target.username or target.password:
        raise InputError(f"webhook: an address must not carry a password; set {AUTHORIZATION}")
    try:
        wrong = target.scheme not in ("https", "http") or not target.hostname or target.port == 0
    except ValueError:
        wrong = True
    if wrong:
        raise InputError(f"{url}: write webhook:https://HOST/PATH")
    if target.scheme == "http" and not re.fullmatch(r"localhost|127\.[\d.]+|::1", target.hostname or ""):
        raise InputError(f"{url}: alerts would travel in the clear; write https")
    authority = os.path.expanduser(url.parameters.get("ca", ""))
    if authority and not os.access(authority, os.R_OK):
        raise InputError(f"{url}: ca={url.parameters['ca']} cannot be read")
    if url.parameters.get("check", "yes") not in ("yes", "no"):
        raise InputError(f"{url}: check={url.parameters['check']}; it is yes or no")
    return Receiver(
        str(url),
        address,
        alerts.number(url, "window_s", 300.0, 0.0, 1e9),
        int(alerts.number(url, "per_post", 100, 1, 10_000)),
        alerts.number(url, "posts_per_s", 10.0, 0.001, 1e6),
        alerts.number(url, "timeout_s", 10.0, 0.1, 3600.0),
        authority,
        url.parameters.get("check", "yes") == "yes",
    )


def connected(receiver: Receiver) -> http.client.HTTPConnection:
    """A connection that is open.

    Raises:
        InputError: The receiver is not who it should be.
        Unavailable: It does not answer.
    """
    target = urlsplit(receiver.address)
    assert target.hostname is not None
    connection: http.client.HTTPConnection
    try:
        if target.scheme == "http":
            connection = http.client.HTTPConnection(target.hostname, target.port, timeout=receiver.timeout_s)
        else:
            context = ssl.create_default_context(cafile=receiver.authority or None)
            connection = http.client.HTTPSConnection(
                target.hostname, target.port, timeout=receiver.timeout_s, context=context
            )
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        remedy = "name the authority with ca=FILE" if not receiver.authority else "see that ca is the right file"
        raise InputError(f"{receiver.named}: no TLS connection ({_reason_of(error)}); {remedy}") from error
    except OSError as error:
        raise Unavailable(f"{receiver.named}: {_reason_of(error)}") from error
    return connection


def _encoded(value: Any) -> bytes:
    return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=_as_text).encode()


def _finite(value: Any) -> Any:
    """JSON has no infinities and no NaN."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not -float("inf") < value < float("inf") else value


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _reason_of(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).partition("\n")[0]


def _asked_for(header: str | None) -> float:
    """Seconds that a receiver asks to wait; a date is not looked at."""
    return min(float(header), _WAIT_MOST_S) if header is not None and header.isdecimal() else 0.0
