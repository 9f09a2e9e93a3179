"""Clients of Pub/Sub: where a URL points to, what it may say, and one line for whatever goes wrong."""

import os
import re
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from transforms.records import InputError

CALL_S = 30.0
"""A call that takes longer has failed."""

_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]*[a-z0-9]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_FINAL = ("NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "FAILED_PRECONDITION")


class Place(NamedTuple):
    """A topic or a subscription.

    Attributes:
        kind: Which of them.
        project: Where it is.
        name: Its name there.
        settings: What stands behind the question mark.
    """

    kind: Literal["topic", "subscription"]
    project: str
    name: str
    settings: dict[str, str]

    @property
    def url(self) -> str:
        """What a person wrote, without settings."""
        return f"pubsub://{self.project}/{self.name}"

    @property
    def path(self) -> str:
        """What Pub/Sub calls it."""
        return f"projects/{self.project}/{self.kind}s/{self.name}"

    def number(self, setting: str, default: int, least: int, most: int) -> int:
        """The number that a setting has.

        Raises:
            InputError: It is none, or out of its range.
        """
        text = self.settings.get(setting, str(default))
        if not text.isdecimal() or not least <= int(text) <= most:
            raise InputError(f"{self.url}: {setting} {text} is not a number from {least} to {most:,}")
        return int(text)


class Trouble(NamedTuple):
    """What went wrong with a call.

    Attributes:
        line: What a person reads.
        final: Whether trying again is of no use.
    """

    line: str
    final: bool


def place_of(kind: Literal["topic", "subscription"], rest: str, allowed: tuple[str, ...]) -> Place:
    """Where `pubsub:` + `rest` points to.

    Raises:
        InputError: It is no such URL, or has a setting that is not allowed.
    """
    where, _, query = rest.partition("?")
    project, _, name = where.removeprefix("//").partition("/")
    if not where.startswith("//") or not project or not name:
        raise InputError(f"pubsub:{where}: names no {kind}; write pubsub://PROJECT/{kind.upper()}")
    if not _PROJECT.fullmatch(project):
        rule = "6 to 30 small letters, digits and hyphens, a letter first"
        raise InputError(f"pubsub:{where}: {project} is no id of a project ({rule}); see `gcloud projects list`")
    if not _NAME.fullmatch(name):
        rule = "3 to 255 letters, digits and any of - . _ ~ + %, a letter first"
        listed = f"gcloud pubsub {kind}s list --project={project}"
        raise InputError(f"pubsub:{where}: {name} is no name of a {kind} ({rule}); see `{listed}`")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    for setting in settings:
        if setting not in (*allowed, "endpoint"):
            known = ", ".join((*allowed, "endpoint"))
            raise InputError(f"pubsub:{where}: unknown setting {setting}; there are {known}")
    return Place(kind, project, name, settings)


def client_of(place: Place) -> Any:
    """A client: of the emulator that PUBSUB_EMULATOR_HOST names, else with the credentials that Google's tools use.

    Raises:
        InputError: The library is not installed, or there are no credentials.
    """
    try:
        import grpc
        from google.auth.exceptions import GoogleAuthError
        from google.pubsub_v1 import PublisherClient, SubscriberClient
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
    except ImportError as error:
        raise InputError(f"{place.url}: needs google-cloud-pubsub; pip install 'flowbeam[pubsub]'") from error
    writes = place.kind == "topic"
    kind = PublisherClient if writes else SubscriberClient
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    if emulator:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(emulator, options=unlimited)
        transport = PublisherGrpcTransport(channel=channel) if writes else SubscriberGrpcTransport(channel=channel)
        return kind(transport=transport)
    endpoint = place.settings.get("endpoint")
    try:
        return kind(client_options={"api_endpoint": endpoint} if endpoint else None)
    except GoogleAuthError as error:
        raise InputError(_credentials_line(place)) from error


def check(place: Place, client: Any) -> None:
    """Makes sure that the topic or subscription is there and may be used, as far as that can be known beforehand.

    Raises:
        InputError: It is not, or Pub/Sub does not answer.
    """
    get = client.get_topic if place.kind == "topic" else client.get_subscription
    try:
        get(request={place.kind: place.path}, retry=None, timeout=CALL_S)
    except Exception as error:
        trouble = trouble_of(place, error)
        if _code_of(error) != "PERMISSION_DENIED" or not _may_be_used(place, client):
            raise InputError(trouble.line) from error


def trouble_of(place: Place, error: Exception) -> Trouble:
    """What an error of a call means.

    Raises:
        Exception: `error` itself, if no call raises such.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from grpc import RpcError

    if isinstance(error, GoogleAuthError) or "Getting metadata from plugin failed" in str(error):
        return Trouble(_credentials_line(place), True)
    if not isinstance(error, GoogleAPIError | RpcError):
        raise error
    code = _code_of(error)
    return Trouble(_line(place, code, error), code in _FINAL)


def _line(place: Place, code: str, error: Exception) -> str:
    if code == "NOT_FOUND":
        make = f"gcloud pubsub {place.kind}s create {place.name} --project={place.project}"
        return f"{place.url}: no such {place.kind}; make it with {make}"
    if code == "PERMISSION_DENIED":
        role = "publisher" if place.kind == "topic" else "subscriber"
        return f"{place.url}: no permission; the account in use needs roles/pubsub.{role} on the {place.kind}"
    if code == "UNAUTHENTICATED":
        return _credentials_line(place)
    said = getattr(error, "message", None) or getattr(error, "details", lambda: None)() or code
    return f"{place.url}: Pub/Sub {'refuses' if code in _FINAL else 'does not answer'} ({str(said).strip()[:200]})"


def _credentials_line(place: Place) -> str:
    how = "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
    return f"{place.url}: no Google credentials, or expired ones; {how}"


def _code_of(error: Exception) -> str:
    """The name of the status that the server, or the client's library, gave."""
    code = getattr(error, "grpc_status_code", None)
    if code is None and callable(getattr(error, "code", None)):
        code = error.code()  # type: ignore[attr-defined] # of grpc.Call
    return str(getattr(code, "name", "UNKNOWN"))


def _may_be_used(place: Place, client: Any) -> bool:
    """Whether the account may use what it may not look at."""
    permission = "pubsub.topics.publish" if place.kind == "topic" else "pubsub.subscriptions.consume"
    try:
        asked = {"resource": place.path, "permissions": [permission]}
        return permission in client.test_iam_permissions(request=asked, timeout=CALL_S).permissions
    except Exception as error:
        trouble_of(place, error)
        return False
