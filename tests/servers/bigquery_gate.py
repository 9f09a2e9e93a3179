"""A stand-in for BigQuery's REST interface that refuses what BigQuery refuses: tables, `insertAll`, load jobs.

It is stricter than the emulator there is, which takes unknown fields, forgets REQUIRED ones and ignores `insertId`. It
runs in the process of the tests; what it stores outlives `stop` and `start`, as BigQuery outlives its front ends.
"""

import base64
import binascii
import decimal
import gzip
import io
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

REQUEST_OCTETS_MOST = 10 << 20
ROWS_MOST = 50_000
DAYS_BACK, DAYS_AHEAD = 3650, 366
_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Refused(Exception):
    """A call fails: HTTP status, reason and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class BadValue(Exception):
    """A value that is none of its type."""


def _int64(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
        raise BadValue
    number = int(value) if isinstance(value, str) or abs(value) < 1 << 53 else int(float(value))
    if not -(1 << 63) <= number < 1 << 63:
        raise BadValue
    return number


def _float64(value: Any) -> float:
    if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
        if not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value):
            raise BadValue
    elif isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadValue
    return float(value)


def _timestamp(value: Any) -> int:
    text = str(value)
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z| ?UTC|[+-]\d\d:\d\d)", text):
        raise BadValue
    seconds, _, fraction = re.sub(r"(Z| ?UTC)$", "", text).partition(".")
    since = datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc) - _EPOCH
    return since // timedelta(microseconds=1) + int(fraction.ljust(6, "0") or 0)


def _of(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise BadValue
        return value

    return check


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError) as error:
        raise BadValue from error


def _numeric(value: Any) -> decimal.Decimal:
    try:
        return decimal.Decimal(str(value))
    except decimal.InvalidOperation as error:
        raise BadValue from error


_READ: dict[str, Callable[[Any], Any]] = {
    "INT64": _int64,
    "FLOAT64": _float64,
    "BOOL": _of(bool),
    "STRING": _of(str),
    "BYTES": _bytes,
    "TIMESTAMP": _timestamp,
    "NUMERIC": _numeric,
}

_IN_PARQUET: dict[str, Callable[[pa.DataType], bool]] = {
    "INT64": pa.types.is_signed_integer,
    "FLOAT64": pa.types.is_float64,
    "BOOL": pa.types.is_boolean,
    "STRING": pa.types.is_string,
    "BYTES": pa.types.is_binary,
    "TIMESTAMP": lambda kind: pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz is not None,
    "NUMERIC": pa.types.is_decimal,
    "STRUCT": pa.types.is_struct,
}


def _kind(field: dict[str, Any]) -> str:
    return _NAMES.get(field["type"], field["type"])


def read_row(row: dict[str, Any], fields: list[dict[str, Any]], errors: list[dict[str, str]], at: str = "") -> dict:
    """The row's values as their types; what is wrong with it is added to `errors`."""

    def wrong(name: str, message: str) -> None:
        errors.append({"reason": "invalid", "location": at + name, "debugInfo": "", "message": message})

    known = {field["name"].lower(): field for field in fields}
    values = {field["name"]: [] if field.get("mode") == "REPEATED" else None for field in fields}
    for name, value in row.items():
        field = known.get(name.lower())
        if field is None:
            wrong(name, f"no such field: {at}{name}.")
            continue
        repeated = field.get("mode") == "REPEATED"
        if value is None or repeated != isinstance(value, list):
            if value is not None:
                wrong(name, "Array specified for non-repeated field." if not repeated else "This field is repeated.")
            continue
        read = []
        for one in value if repeated else [value]:
            if one is None:
                wrong(name, f"Only optional fields can be set to NULL. Field: {at}{name}; Value: NULL")
            elif _kind(field) == "STRUCT":
                if isinstance(one, dict):
                    read.append(read_row(one, field["fields"], errors, f"{at}{name}."))
                else:
                    wrong(name, f"This field: {name} is a record.")
            else:
                try:
                    read.append(_READ[_kind(field)](one))
                except (BadValue, ValueError, OverflowError):
                    wrong(name, f"Cannot convert value to {_kind(field).lower()} (bad value): {one}")
        if read:
            values[field["name"]] = read if repeated else read[0]
    for field in fields:
        if field.get("mode") == "REQUIRED" and values[field["name"]] is None:
            wrong(field["name"], f"Missing required field: {at}{field['name']}.")
    return values


class BigQueryGate:
    """A BigQuery of one process.

    Attributes:
        port: Where it listens, over `stop` and `start`.
        tables: What was made, by `project.dataset.table`: resources as BigQuery tells them.
        faults: What happens to the next calls of `insertAll`, one each: a status, `reset`, `lost` (done, but the
            answer is cut off) or a dict, the `insertErrors` to tell.
        calls: How many calls of `insertAll` there were.
        largest: Octets of the largest of them.
        forbidden: Every call is refused.
        slow_s: How long each `insertAll` takes.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.datasets: set[str] = set()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.faults: deque[Any] = deque()
        self.calls = self.largest = 0
        self.forbidden = False
        self.slow_s = 0.0
        self.port = 0
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._seen: dict[str, set[str]] = {}
        self._uploads: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> "BigQueryGate":
        """Listens."""
        gate = self

        class Handler(_Handler):
            pass

        Handler.gate = gate
        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def endpoint(self) -> str:
        """For the environment variable BIGQUERY_EMULATOR_HOST."""
        return f"http://127.0.0.1:{self.port}"

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What a table holds: INT64 as int, TIMESTAMP as µs, BYTES as bytes, REPEATED as list."""
        return self._rows.get(table, [])

    def answer(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> dict[str, Any]:
        """The answer to a call."""
        if self.forbidden:
            raise Refused(403, "accessDenied", "Access Denied: BigQuery: Permission denied")
        with self._lock:
            for pattern, name in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found:
                    return getattr(self, name)(method, *found.groups(), query=query, headers=headers, body=body)
        raise Refused(404, "notFound", f"Not found: {method} {path}")

    def dataset(self, method: str, project: str, dataset: str, **_: Any) -> dict[str, Any]:
        if f"{project}.{dataset}" not in self.datasets:
            raise Refused(404, "notFound", f"Not found: Dataset {project}:{dataset}")
        return {"datasetReference": {"projectId": project, "datasetId": dataset}, "id": f"{project}:{dataset}"}

    def make_table(self, method: str, project: str, dataset: str, body: bytes, **_: Any) -> dict[str, Any]:
        self.dataset("GET", project, dataset)
        table = json.loads(body)
        path = f"{project}.{dataset}.{table['tableReference']['tableId']}"
        if path in self.tables:
            raise Refused(409, "duplicate", f"Already Exists: Table {path}")
        table["type"] = "VIEW" if "view" in table else "TABLE"
        if "view" not in table:
            _check_layout(table)
        self._set(path, table)
        return table

    def table(self, method: str, project: str, dataset: str, name: str, **call: Any) -> dict[str, Any]:
        path = f"{project}.{dataset}.{name}"
        if path not in self.tables:
            raise Refused(404, "notFound", f"Not found: Table {project}:{dataset}.{name}")
        table = self.tables[path]
        if method == "GET":
            return table
        if call["headers"].get("If-Match", table["etag"]) != table["etag"]:
            raise Refused(412, "conditionNotMet", "Precondition check failed.")
        change = json.loads(call["body"])
        if "schema" in change:
            _check_change(path, table["schema"]["fields"], change["schema"]["fields"])
        self._set(path, {**table, **change})
        return self.tables[path]

    def insert(self, method: str, project: str, dataset: str, name: str, body: bytes, **_: Any) -> dict[str, Any]:
        table = self.table("GET", project, dataset, name)
        path, fields = f"{project}.{dataset}.{name}", table["schema"]["fields"]
        self.calls += 1
        self.largest = max(self.largest, len(body))
        if len(body) > REQUEST_OCTETS_MOST:
            raise Refused(413, "", f"Request payload size exceeds the limit: {REQUEST_OCTETS_MOST} bytes.")
        try:
            request = json.loads(body, parse_constant=_no_constant)
        except ValueError as error:
            raise Refused(400, "parseError", f"Invalid JSON payload received. {error}") from error
        if not 0 < len(request["rows"]) <= ROWS_MOST:
            raise Refused(400, "invalid", "No rows present in the request, or too many rows.")
        found: dict[int, list[dict[str, str]]] = {}
        good = []
        for index, row in enumerate(request["rows"]):
            errors: list[dict[str, str]] = []
            values = read_row(row["json"], fields, errors)
            errors = errors or _outside(table, values)
            if errors:
                found[index] = errors
            else:
                good.append((row.get("insertId"), values))
        if found and not request.get("skipInvalidRows"):
            stopped = [{"reason": "stopped", "location": "", "debugInfo": "", "message": ""}]
            good, found = [], {index: found.get(index, stopped) for index in range(len(request["rows"]))}
        seen = self._seen.setdefault(path, set())
        for insert_id, values in good:
            if insert_id is None or insert_id not in seen:
                self._rows.setdefault(path, []).append(values)
                seen.add(insert_id)
        told = [{"index": index, "errors": errors} for index, errors in sorted(found.items())]
        return {"kind": "bigquery#tableDataInsertAllResponse", **({"insertErrors": told} if told else {})}

    def upload(self, method: str, project: str, query: dict[str, str], headers: Any, body: bytes) -> dict[str, Any]:
        """A load job with its file: in one call of two parts, or begun here and sent to `upload_id`."""
        if query.get("uploadType") == "multipart":
            boundary = re.search(r"boundary=\"?([^\";]+)", headers["Content-Type"])[1].encode()
            _, first, second, _ = body.split(b"--" + boundary)
            parts = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in (first, second)]
            return self._run(project, json.loads(parts[0]), parts[1])
        if "upload_id" not in query:
            name = str(len(self._uploads))
            self._uploads[name] = {"job": json.loads(body), "octets": b""}
            return {
                "": f"{self.endpoint}/upload/bigquery/v2/projects/{project}/jobs?uploadType=resumable&upload_id={name}"
            }
        upload = self._uploads[query["upload_id"]]
        upload["octets"] += body
        total = headers["Content-Range"].rpartition("/")[2]
        if total == "*" or len(upload["octets"]) < int(total):
            return {"range": len(upload["octets"])}
        return self._run(project, upload["job"], upload["octets"])

    def job(self, method: str, project: str, name: str, **_: Any) -> dict[str, Any]:
        if name not in self.jobs:
            raise Refused(404, "notFound", f"Not found: Job {project}:{name}")
        return self.jobs[name]

    def _run(self, project: str, job: dict[str, Any], octets: bytes) -> dict[str, Any]:
        name = job["jobReference"]["jobId"]
        if name in self.jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {project}:{name}")
        config = job["configuration"]["load"]
        to = config["destinationTable"]
        path = f"{to['projectId']}.{to['datasetId']}.{to['tableId']}"
        status: dict[str, Any] = {"state": "DONE"}
        done: dict[str, Any] = {"jobReference": {**job["jobReference"], "location": "US"}, "status": status}
        self.jobs[name] = done | {"configuration": job["configuration"]}
        try:
            rows = _loaded(self.tables[path]["schema"]["fields"], config, octets)
        except Refused as refused:
            status["errorResult"] = {"reason": refused.reason, "message": str(refused)}
            status["errors"] = [status["errorResult"]]
            return self.jobs[name]
        self._rows.setdefault(path, []).extend(rows)
        self.jobs[name]["statistics"] = {"load": {"outputRows": str(len(rows))}}
        return self.jobs[name]

    def _set(self, path: str, table: dict[str, Any]) -> None:
        project, dataset, name = path.split(".")
        reference = {"projectId": project, "datasetId": dataset, "tableId": name}
        self.tables[path] = {**table, "tableReference": reference, "etag": f"{time.monotonic_ns():x}"}

    def __enter__(self) -> "BigQueryGate":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


_TABLE = r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)"

_ROUTES = (
    (f"{_TABLE}/insertAll", "insert"),
    (_TABLE, "table"),
    (r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables", "make_table"),
    (r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)", "dataset"),
    (r"/(?:resumable/)?upload/bigquery/v2/projects/([^/]+)/jobs", "upload"),
    (r"/bigquery/v2/projects/([^/]+)/jobs/([^/]+)", "job"),
    (r"/bigquery/v2/projects/([^/]+)/queries/([^/]+)", "job"),
)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _check_layout(table: dict[str, Any]) -> None:
    """What partitioning and clustering ask for."""
    top = {field["name"]: field for field in table["schema"]["fields"]}
    by = table.get("timePartitioning", {}).get("field")
    if by is not None and _kind(top.get(by, {"type": ""})) not in ("TIMESTAMP", "DATE", "DATETIME"):
        raise Refused(400, "invalid", f"The field specified for partitioning cannot be found in the schema: {by}")
    clustered = table.get("clustering", {}).get("fields", [])
    for name in clustered:
        if name not in top or top[name].get("mode") == "REPEATED" or _kind(top[name]) in ("STRUCT", "FLOAT64", "BYTES"):
            raise Refused(400, "invalid", f"Clustering is not possible on {name}")
    if len(clustered) > 4:
        raise Refused(400, "invalid", "Entity has too many clustering fields")


def _check_change(path: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    """A schema may get columns at its end, and REQUIRED may become NULLABLE."""

    def bad(message: str) -> Refused:
        return Refused(400, "invalid", f"Provided Schema does not match Table {path}. {message}")

    by_name = {field["name"]: field for field in new}
    for field in old:
        if field["name"] not in by_name:
            raise bad(f"Field {field['name']} is missing in new schema")
        other = by_name.pop(field["name"])
        if _kind(field) != _kind(other):
            raise bad(f"Field {field['name']} has changed type from {_kind(field)} to {_kind(other)}")
        modes = (field.get("mode", "NULLABLE"), other.get("mode", "NULLABLE"))
        if modes[0] != modes[1] and modes != ("REQUIRED", "NULLABLE"):
            raise bad(f"Field {field['name']} has changed mode from {modes[0]} to {modes[1]}")
        if _kind(field) == "STRUCT":
            _check_change(path, field["fields"], other["fields"])
    for field in by_name.values():
        if field.get("mode") == "REQUIRED":
            raise bad(f"Cannot add required fields to an existing schema. (field: {field['name']})")


def _outside(table: dict[str, Any], values: dict[str, Any]) -> list[dict[str, str]]:
    by = table.get("timePartitioning", {}).get("field")
    if by is None or values.get(by) is None:
        return []
    day = values[by] // 86_400_000_000
    today = int(time.time() // 86_400)
    if today - DAYS_BACK <= day <= today + DAYS_AHEAD:
        return []
    told = (
        f"The value {values[by]} for field {by} of the destination table is outside the allowed bounds. You can only"
        f" stream to date range within {DAYS_BACK} days in the past and {DAYS_AHEAD} days in the future relative to the"
        " current date."
    )
    return [{"reason": "invalid", "location": by, "debugInfo": "", "message": told}]


def _loaded(fields: list[dict[str, Any]], config: dict[str, Any], octets: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file that fits the table."""
    if config.get("sourceFormat") != "PARQUET" or config.get("writeDisposition") != "WRITE_APPEND":
        raise Refused(400, "invalid", "only Parquet, and only appended")
    try:
        read = pq.read_table(io.BytesIO(octets))
    except pa.ArrowException as error:
        raise Refused(400, "invalid", f"Error while reading data: {error}") from error
    _check_parquet(read.schema, fields, config.get("parquetOptions", {}).get("enableListInference", False))
    for index, field in enumerate(read.schema):
        if pa.types.is_timestamp(field.type):
            read = read.set_column(index, field.name, read[field.name].cast(pa.int64()))
    empty = {field["name"]: [] if field.get("mode") == "REPEATED" else None for field in fields}
    repeated = [name for name, value in empty.items() if value == []]
    rows = [{**empty, **row} for row in read.to_pylist()]
    for row in rows:
        row.update({name: [] for name in repeated if row[name] is None})
    return rows


def _check_parquet(schema: pa.Schema, fields: list[dict[str, Any]], lists: bool) -> None:
    known = {field["name"]: field for field in fields}
    for column in schema:
        field = known.pop(column.name, None)
        if field is None:
            raise Refused(
                400, "invalid", f"Provided Schema does not match Table. Cannot add fields (field: {column.name})"
            )
        kind = column.type
        if field.get("mode") == "REPEATED":
            if not (pa.types.is_list(kind) and lists):
                raise Refused(400, "invalid", f"Field {column.name} has changed type from REPEATED")
            kind = kind.value_type
        if not _IN_PARQUET[_kind(field)](kind):
            raise Refused(400, "invalid", f"Field {column.name} has changed type from {_kind(field)} to {kind}")
        if field.get("mode") == "REQUIRED" and column.nullable:
            raise Refused(400, "invalid", f"Field {column.name} has changed mode from REQUIRED to NULLABLE")
    for field in known.values():
        if field.get("mode") == "REQUIRED":
            raise Refused(400, "invalid", f"Required field {field['name']} is missing")


class _Handler(BaseHTTPRequestHandler):
    gate: BigQueryGate
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        path, _, text = self.path.partition("?")
        query = dict(pair.partition("=")[::2] for pair in text.split("&"))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        fault = None
        if path.endswith("/insertAll"):
            time.sleep(self.gate.slow_s)
            fault = self.gate.faults.popleft() if self.gate.faults else None
        try:
            if fault == "reset":
                self._cut()
                return
            if isinstance(fault, int):
                raise Refused(fault, "backendError" if fault >= 500 else "rateLimitExceeded", "told to fail")
            answer = self.gate.answer(self.command, path, query, self.headers, body)
            if fault == "lost":
                self._cut()
            elif "" in answer:
                self._send(200, {}, {"Location": answer[""]})
            elif "range" in answer:
                self._send(308, {}, {"Range": f"bytes=0-{answer['range'] - 1}"})
            else:
                self._send(200, fault if isinstance(fault, dict) else answer)
        except Refused as refused:
            errors = [{"reason": refused.reason, "message": str(refused), "domain": "global"}]
            self._send(refused.status, {"error": {"code": refused.status, "message": str(refused), "errors": errors}})

    do_POST = do_PATCH = do_PUT = do_GET

    def _cut(self) -> None:
        """Resets the connection."""
        self.close_connection = True
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _send(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def gate() -> Iterator[BigQueryGate]:
    """A gate for one test, with a dataset `net` in the project `test`; to be used as a generator fixture."""
    with BigQueryGate() as started:
        started.datasets.add("test.net")
        yield started
