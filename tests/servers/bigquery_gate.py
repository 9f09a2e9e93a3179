"""A stand-in for BigQuery's REST interface that refuses what BigQuery refuses: tables, `insertAll`, load jobs.

It is stricter than the emulator there is, which takes unknown fields, forgets REQUIRED ones and ignores `insertId`. It
runs in the process of the tests; what it stores outlives `stop` and `start`, as BigQuery outlives its front ends.
"""

import gzip
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from servers.bigquery_rules import Refused, check_change, check_layout, loaded, outside, read_row

REQUEST_OCTETS_MOST = 10 << 20
ROWS_MOST = 50_000


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
            check_layout(table)
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
            check_change(path, table["schema"]["fields"], change["schema"]["fields"])
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
            errors = errors or outside(table, values)
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
            rows = loaded(self.tables[path]["schema"]["fields"], config, octets)
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
