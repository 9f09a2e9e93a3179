"""Secrets that servers ask for: of the environment, of a file, or of Google's Secret Manager.

The variable `NAME` holds a secret; `NAME_FILE`, which comes first, says where it is: in a file, or in
`secret://projects/P/secrets/S/versions/V`, which is read by the process that needs it, with the account that Google's
libraries find there. Without `/versions/V` it is the latest. Such a reference is no secret: a job hands it to its
workers, whose environment nobody can set on Dataflow, and the secret itself stays out of options, graph and state.
"""

import base64
import functools
import logging
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from transforms.records import InputError

_log = logging.getLogger(__name__)

SCHEME = "secret://"

BEHIND = "_FILE"
"""Stands behind the name of a variable that says where a secret is."""

ENDPOINT = "https://secretmanager{region}.googleapis.com/v1/{name}:access"

_NAME = re.compile(r"projects/[^/\s]+(?:/locations/([a-z0-9-]+))?/secrets/[\w-]+(?P<version>/versions/[\w-]+)?")
_CALL_S = 20.0
_TRIES = 4
_TRANSIENT = (429, 500, 502, 503, 504)
_REMEDIES = {
    401: "look at the account's credentials",
    403: "give the account roles/secretmanager.secretAccessor on it",
    404: "make it, and add a version: gcloud secrets versions add",
}


def secret(named: str, name: str) -> str | None:
    """The secret of a variable, without blanks around it; None if it has none.

    Args:
        named: What needs it, for messages.
        name: Name of the variable.

    Raises:
        InputError: The place that is named for it cannot be read.
    """
    place = os.environ.get(name + BEHIND)
    if place is None:
        return os.environ.get(name) or None
    where = f"{named}: {name}{BEHIND}={place}"
    if place.startswith(SCHEME):
        return _accessed(where, place).strip()
    try:
        with open(place, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{where}: cannot be read: {reason}") from error


@functools.cache
def warn_of_clear_text(named: str, hosts: tuple[str, ...], remedy: str) -> None:
    """Says, once, that a secret travels unencrypted to hosts; not if these are this machine.

    Args:
        named: What sends it.
        hosts: Where to, without ports.
        remedy: What to do about it.
    """
    if not all(re.fullmatch(r"localhost|127\.[\d.]+|::1", host) for host in hosts):
        _log.warning("%s: the password is sent unencrypted; %s", named, remedy)


def references() -> dict[str, str]:
    """The variables of this process that name a secret of Secret Manager: for workers."""
    return {name: place for name, place in os.environ.items() if name.endswith(BEHIND) and place.startswith(SCHEME)}


def refer(given: Mapping[str, str]) -> None:
    """Takes over what `references` told elsewhere."""
    os.environ.update(given)


def parsed(option: str, words: Iterable[str]) -> dict[str, str]:
    """What `references` is to tell of each `NAME=projects/P/secrets/S/versions/V`.

    Raises:
        InputError: It is none; the message names the option.
    """
    found = {}
    for word in words:
        name, _, place = word.partition("=")
        place = place.removeprefix(SCHEME)
        if not re.fullmatch("FLOWBEAM_[A-Z_]+", name) or not _NAME.fullmatch(place):
            raise InputError(f"{option} {word}: write FLOWBEAM_NAME=projects/PROJECT/secrets/SECRET/versions/VERSION")
        found[name + BEHIND] = SCHEME + place
    return found


def _accessed(where: str, place: str) -> str:
    """The text of a secret, asked of Secret Manager.

    Raises:
        InputError: There is no such secret, it is not ours to read, or nobody answers.
    """
    match = _NAME.fullmatch(place.removeprefix(SCHEME))
    if match is None:
        raise InputError(f"{where}: is no secret; write {SCHEME}projects/PROJECT/secrets/SECRET/versions/VERSION")
    try:
        from google.auth import exceptions
        from requests import RequestException
    except ImportError as error:
        raise InputError(f"{where}: needs google-auth, which is not installed: pip install 'flowbeam[gcp]'") from error
    region = f".{match[1]}.rep" if match[1] else ""
    name = match[0] + ("" if match["version"] else "/versions/latest")
    try:
        answer = _asked(ENDPOINT.format(region=region, name=name))
    except exceptions.DefaultCredentialsError as error:
        raise InputError(
            f"{where}: no Google credentials: run `gcloud auth application-default login`, or set"
            " GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"
        ) from error
    except (exceptions.GoogleAuthError, RequestException) as error:
        raise InputError(f"{where}: cannot ask Secret Manager: {_first_line(error)}") from error
    try:
        told = answer.json()
        if answer.status_code == 200:
            return base64.b64decode(told["payload"]["data"]).decode()
        reason = str(told["error"]["message"])
    except (ValueError, KeyError, TypeError):
        reason = "no answer that can be read"
    remedy = _REMEDIES.get(answer.status_code, "try again later")
    raise InputError(f"{where}: {answer.status_code}: {reason.rstrip('.')}; {remedy}")


def _asked(url: str) -> Any:
    """What is answered to a request that the account signs; it is tried again where the server has too much to do."""
    import google.auth
    import requests
    import tenacity
    from google.auth.transport.requests import AuthorizedSession

    account, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    trying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(requests.ConnectionError)
        | tenacity.retry_if_result(lambda answer: answer.status_code in _TRANSIENT),
        wait=tenacity.wait_exponential(multiplier=0.3),
        stop=tenacity.stop_after_attempt(_TRIES),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    with AuthorizedSession(account) as session:
        return trying(session.get, url, timeout=_CALL_S)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
