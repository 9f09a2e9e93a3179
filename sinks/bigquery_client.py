"""What speaks to BigQuery: the table and its views when the pipeline is built, rows while it runs.

Credentials are those that Google's tools find; BIGQUERY_EMULATOR_HOST (`http://HOST:PORT`) leads to a stand-in, which
needs none.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa

from sinks import bigquery_schema, bigquery_views
from sinks.bigquery_rows import Request, requests
from sinks.blocks import Unavailable
from transforms.records import InputError, Reject

CALL_S = 60.0
"""A call that takes longer has failed."""

ASKED_S = 30.0
"""A question is asked so long where BigQuery is away or busy."""

_SCOPES = ("https://www.googleapis.com/auth/bigquery",)
_TRANSIENT = {"backendError", "internalError", "rateLimitExceeded", "quotaExceeded", "stopped", "timeout"}
_NOT_KNOWN_YET = "no such field"
_TOO_LARGE = re.compile("exceeds the limit|too large|payload size", re.IGNORECASE)
_REASON_OCTETS = 200
_UPDATES = 3


class Place(NamedTuple):
    """A table.

    Attributes:
        named: The output, for messages.
        project: Its project.
        dataset: Its dataset.
        table: Its name.
    """

    named: str
    project: str
    dataset: str
    table: str

    @property
    def path(self) -> str:
        """`project.dataset.table`, as queries name it."""
        return f"{self.project}.{self.dataset}.{self.table}"

    @property
    def views(self) -> list[str]:
        """Names of its views."""
        return [f"{self.table}_{view.name}" for view in bigquery_views.VIEWS]


def place_of(named: str, path: str) -> Place:
    """Takes `project.dataset.table` apart.

    Args:
        named: The output, for messages.
        path: As in its URL.

    Raises:
        InputError: It is none.
    """
    found = re.fullmatch(r"((?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*)\.(\w+)\.([\w-]+)", path)
    if found is None:
        raise InputError(f"{named}: {path} is no table; write bigquery:PROJECT.DATASET.TABLE")
    return Place(named, *found.groups())


def client_of(place: Place) -> Any:
    """Google's client, for tables, views and load jobs.

    Raises:
        InputError: The library is missing, or there are no credentials.
    """
    try:
        from google.api_core.client_options import ClientOptions
        from google.cloud import bigquery
    except ImportError as error:
        raise InputError(
            f"{place.named}: needs google-cloud-bigquery, which is not installed: pip install 'flowbeam[bigquery]'"
        ) from error
    options = ClientOptions(api_endpoint=_endpoint())
    return bigquery.Client(project=place.project, credentials=_credentials(place), client_options=options)


def asked() -> dict[str, Any]:
    """How long a call of Google's client may take, and be tried: alone, the client would go on for ten minutes."""
    from google.cloud.bigquery import DEFAULT_RETRY

    return {"timeout": CALL_S, "retry": DEFAULT_RETRY.with_timeout(ASKED_S)}


def prepare(place: Place, schema: pa.Schema, only_check: bool = False) -> list[str]:
    """Makes the table and its views, or gives a table the columns that it lacks; nothing is ever taken away.

    Args:
        place: The table.
        schema: The columns.
        only_check: Nothing is made.

    Returns:
        What is made, or would be.

    Raises:
        InputError: The dataset is missing, the table does not fit, or we may not.
    """
    client = client_of(place)
    from google.api_core import exceptions  # after the client, which says so where Google's libraries are missing

    wanted = bigquery_schema.table_fields(schema)
    makes: list[str] = []
    with one_line(place):
        for update in range(_UPDATES):
            try:
                table = client.get_table(f"{place.project}.{place.dataset}.{place.table}", **asked())
            except exceptions.NotFound:
                _create(place, client, wanted, only_check)
                makes = [f"table {place.path}", *(f"view {name}" for name in place.views)]
                if only_check:
                    return makes
                continue
            there = [field.to_api_repr() for field in table.schema]
            try:
                missing = bigquery_schema.missing_fields(there, wanted)
            except InputError as error:
                raise InputError(f"{place.named}: in the table {error}; choose another table") from None
            if missing:
                makes.append(f"{len(missing)} columns of {place.path}")
            if missing and not only_check:
                table.schema = bigquery_schema.merged_fields(there, wanted)
                try:
                    client.update_table(table, ["schema"], **asked())
                except exceptions.PreconditionFailed:  # another job was quicker, perhaps with the same columns
                    if update == _UPDATES - 1:
                        raise
                    makes.clear()
                    continue
            made = _set_views(place, client, renew=bool(missing), only_check=only_check)
            return list(dict.fromkeys([*makes, *made]))
        raise InputError(f"{place.named}: the table comes and goes; see who else works with it")


def _create(place: Place, client: Any, wanted: Sequence[dict[str, Any]], only_check: bool) -> None:
    """Makes the table, unless that is only checked.

    Raises:
        InputError: Its dataset is missing.
    """
    from google.api_core import exceptions
    from google.cloud import bigquery

    try:
        client.get_dataset(f"{place.project}.{place.dataset}", **asked())
    except exceptions.NotFound:
        make = f"bq mk --dataset {place.project}:{place.dataset}"
        raise InputError(
            f"{place.named}: there is no dataset {place.project}.{place.dataset}; make it: {make}"
        ) from None
    if only_check:
        return
    table = bigquery.Table(place.path, schema=[bigquery.SchemaField.from_api_repr(field) for field in wanted])
    table.description = "Network flows of flowbeam: one row for each record of a flow."
    table.time_partitioning = bigquery.TimePartitioning("DAY", bigquery_schema.PARTITIONED_BY)
    table.clustering_fields = list(bigquery_schema.CLUSTERED_BY)
    client.create_table(table, exists_ok=True, **asked())


def _set_views(place: Place, client: Any, renew: bool, only_check: bool) -> list[str]:
    """Makes the views that are missing, and says so; `renew` tells BigQuery that `*` means more columns than before."""
    from google.api_core import exceptions
    from google.cloud import bigquery

    made = []
    for name, view in zip(place.views, bigquery_views.VIEWS, strict=True):
        path, query = f"{place.project}.{place.dataset}.{name}", view.on(place.path)
        try:
            there = client.get_table(path, **asked())
        except exceptions.NotFound:
            made.append(f"view {name}")
            if not only_check:
                wanted = bigquery.Table(path)
                wanted.view_query, wanted.description = query, view.description
                client.create_table(wanted, exists_ok=True, **asked())
            continue
        if there.table_type != "VIEW":
            raise InputError(f"{place.named}: {path} is a table, and no place for the view; choose another table")
        if (renew or there.view_query != query) and not only_check:
            there.view_query = query
            client.update_table(there, ["view_query"], **asked())
    return made


class RowWriter:
    """Writes blocks of flows as rows, by `insertAll`. `write` may be called by several threads.

    Args:
        place: The table, which `prepare` has made.
        connections: How many calls are under way at most.
    """

    def __init__(self, place: Place, connections: int) -> None:
        from google.auth.transport.requests import AuthorizedSession
        from requests.adapters import HTTPAdapter

        self._place = place
        self._session = AuthorizedSession(_credentials(place), max_refresh_attempts=1)
        self._session.mount("http", HTTPAdapter(pool_connections=1, pool_maxsize=connections))
        dataset = f"projects/{place.project}/datasets/{place.dataset}"
        self._url = f"{_endpoint()}/bigquery/v2/{dataset}/tables/{place.table}/insertAll?prettyPrint=false"

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject]:
        """Writes a block.

        Yields:
            What BigQuery refuses, with its reason and the row as JSON.

        Raises:
            Unavailable: It has to be written again; BigQuery drops rows of the first minute that come twice, and the
                view `flows_latest` all others.
            InputError: The table, the credentials or the quota do not allow it.
        """
        waiting = [*requests(flows)][::-1]
        while waiting:
            request = waiting.pop()
            status, answer, after_s = self._post(request.body)
            if status == 200:
                yield from self._refused(request, answer.get("insertErrors", ()))
                continue
            message, reason = _error_of(answer)
            if status == 413 or (status == 400 and _TOO_LARGE.search(message)):
                if len(request.rows) == 1:
                    yield self._reject(request, 0, message)
                else:
                    waiting += request.halves()[::-1]
            elif status in (404, 408, 429) or status >= 500 or reason in _TRANSIENT:  # 404: made a moment ago
                raise Unavailable(f"{status} {message}", after_s)
            else:
                raise InputError(f"{self._place.named}: BigQuery refuses to be written: {status} {message}")

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def _post(self, body: bytes) -> tuple[int, dict[str, Any], float]:
        """Status, answer, and for how many seconds to wait."""
        import requests as http
        from google.auth import exceptions

        try:
            headers = {"Content-Type": "application/json"}
            answer = self._session.post(self._url, data=body, headers=headers, timeout=CALL_S)
        except exceptions.RefreshError as error:
            if error.retryable:
                raise Unavailable(_first_line(error)) from error
            raise InputError(f"{self._place.named}: the credentials are refused: {_first_line(error)}") from error
        except (exceptions.TransportError, http.RequestException) as error:
            raise Unavailable(_first_line(error)) from error
        after = answer.headers.get("Retry-After", "")
        try:
            told = answer.json()
        except ValueError:
            told = {"error": {"message": answer.reason}}
            if answer.status_code == 200:
                raise Unavailable("an answer that was cut short") from None
        return answer.status_code, told, float(after) if after.isdecimal() else 0.0

    def _refused(self, request: Request, errors: Sequence[dict[str, Any]]) -> Iterator[Reject]:
        """The rows with errors.

        Raises:
            Unavailable: For some of them, it was no fault of the row.
        """
        refused = []
        for row in errors:
            first: dict[str, Any] = next(iter(row.get("errors", ())), {})
            reason, message = first.get("reason", ""), first.get("message", "")
            if reason in _TRANSIENT or message.startswith(_NOT_KNOWN_YET):
                # `prepare` made every column; for minutes after that, some of BigQuery's servers do not know it.
                raise Unavailable(f"{reason}: {message}")
            refused.append(self._reject(request, int(row.get("index", 0)), message or reason))
        yield from refused

    def _reject(self, request: Request, row: int, message: str) -> Reject:
        payload = request.rows[row].as_py().encode()
        return Reject("bigquery", message[:_REASON_OCTETS], self._place.path, None, payload)


@contextmanager
def one_line(place: Place) -> Iterator[None]:
    """Turns what Google's libraries raise into the one line that a person can act on.

    Raises:
        InputError: In its place.
    """
    import requests as http
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    try:
        yield
    except (auth.RefreshError, api.Unauthorized) as error:
        raise InputError(f"{place.named}: the credentials are refused: {_first_line(error)}") from error
    except api.Forbidden as error:
        roles = "roles/bigquery.dataEditor on the dataset"
        raise InputError(f"{place.named}: not allowed: {_first_line(error)}; give the account {roles}") from error
    except api.NotFound as error:
        raise InputError(f"{place.named}: not found: {_first_line(error)}") from error
    except api.RetryError as error:
        said = f"no answer in {ASKED_S:g} s: {_first_line(error.cause or error)}"
        raise InputError(f"{place.named}: {said}; see that BigQuery can be reached from here") from error
    except (api.GoogleAPICallError, auth.GoogleAuthError, http.RequestException) as error:
        raise InputError(f"{place.named}: cannot ask BigQuery: {_first_line(error)}") from error


def _endpoint() -> str:
    return os.environ.get("BIGQUERY_EMULATOR_HOST", "https://bigquery.googleapis.com").rstrip("/")


def _credentials(place: Place) -> Any:
    """What calls are signed with.

    Raises:
        InputError: There is nothing.
    """
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    if "BIGQUERY_EMULATOR_HOST" in os.environ:
        return AnonymousCredentials()
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise InputError(
            f"{place.named}: no Google credentials: run `gcloud auth application-default login`, or set"
            " GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"
        ) from error
    return credentials


def _error_of(answer: dict[str, Any]) -> tuple[str, str]:
    """Message and reason of a call that failed."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return str(error or "no answer that can be read"), ""
    first: dict[str, Any] = next(iter(error.get("errors", ())), {})
    return str(error.get("message", "")), str(first.get("reason", ""))


def _first_line(error: BaseException) -> str:
    line = str(getattr(error, "message", "") or error).strip().partition("\n")[0]
    of_system = re.search(r"\[Errno -?\d+\] ([\w ]+)", line)  # at the end of what a connection was wanted for
    return of_system[1] if of_system else line
