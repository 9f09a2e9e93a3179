"""A job on a Flink cluster, through the cluster's REST interface: what Beam's job server does not tell, or cannot do.

The job server calls a job cancelled that goes on running on the cluster, and has counters only of jobs that have ended.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, PortableOptions

_END_OF_TIME = (1 << 63) - 1
_ENDED = ("FINISHED", "CANCELED", "FAILED")
_QUERY_LENGTH_MOST = 3500
"""Flink answers 404 to requests of more than 4,096 characters; names of steps are long."""


class FlinkJob:
    """One job of a cluster.

    Attributes:
        rest: `http://host:port` of the cluster.
        job: Its hexadecimal identity there.
    """

    def __init__(self, rest: str, job: str) -> None:
        self.rest = rest
        self.job = job

    def state(self) -> str:
        """RUNNING, RESTARTING, CANCELED, FAILED, FINISHED or on the way there."""
        return str(self._ask("")["state"])

    def has_ended(self) -> bool:
        """Whether it will never do anything again."""
        return self.state() in _ENDED

    def is_drained(self) -> bool:
        """Whether all input has ended and every step is done with it; such a job runs on until it is cancelled."""
        about = self._ask("")
        if about["state"] != "RUNNING":
            return False
        steps = [vertex for vertex in about["vertices"] if not vertex["name"].startswith("Source: Impulse")]
        for vertex in steps:
            path = f"/vertices/{vertex['id']}/metrics"
            names = [metric["id"] for metric in self._ask(path) if metric["id"].endswith("currentOutputWatermark")]
            if len(names) < vertex["parallelism"]:
                return False
            reached = self._ask(f"{path}?get={urllib.parse.quote(','.join(names))}")
            if any(int(metric["value"]) < _END_OF_TIME for metric in reached):
                return False
        return bool(steps)

    def look(self) -> object:
        """Changes whenever the cluster looks at its figures anew; `is_drained` and `counters` are as of then.

        It asks all task managers at once. Where one is lost meanwhile, it waits for its answer until `web.timeout` is
        over, and does not look again before.
        """
        return self._ask("/metrics?get=uptime,runningTime")  # Flink 1 has the one, Flink 2 the other

    def failures(self) -> dict[int, str]:
        """Why it was restarted: the first line of each reason, by its time in milliseconds."""
        entries = self._ask("/exceptions?maxExceptions=20").get("exceptionHistory", {}).get("entries", [])
        return {entry["timestamp"]: _cause(entry["stacktrace"]) for entry in entries}

    def counters(self) -> dict[str, int] | None:
        """Counters of Beam, `namespace_name`, summed over the cluster since the job was last started there.

        They are some seconds old; None while the cluster has no figures of some step.
        """
        totals: dict[str, int] = {}
        for vertex in self._ask("")["vertices"]:
            path = f"/vertices/{vertex['id']}/subtasks/metrics"
            figures = [metric["id"] for metric in self._ask(path)]
            if not figures:
                return None
            names = (name for name in figures if "}." in name and "_metric_" not in name)  # which are the runner's own
            for query in _queries(names):
                for metric in self._ask(f"{path}?get={query}&agg=sum"):
                    name = metric["id"].rpartition("}.")[2]
                    totals[name] = totals.get(name, 0) + int(metric["sum"])
        return totals

    def last_checkpoint(self) -> str | None:
        """Where the newest checkpoint lies that a job can be started from; None without one."""
        latest = self._ask("/checkpoints").get("latest", {})
        newest = max(
            (latest[kind] for kind in ("completed", "savepoint") if latest.get(kind)),
            key=lambda one: one["latest_ack_timestamp"],
            default=None,
        )
        return newest["external_path"] if newest else None

    def answers_age_s(self) -> float:
        """How old what the cluster tells of checkpoints may be, in seconds (its `web.refresh-interval`)."""
        return float(request("GET", f"{self.rest}/config")["refresh-interval"]) / 1000

    def cancel(self) -> None:
        """Asks for its end; `has_ended` tells when."""
        self._request("PATCH", "?mode=cancel")

    def _ask(self, path: str) -> Any:
        return self._request("GET", path)

    def _request(self, method: str, path: str) -> Any:
        return request(method, f"{self.rest}/jobs/{self.job}{path}")


def _queries(names: Iterable[str]) -> Iterator[str]:
    """The names, quoted, as many together as Flink reads in one line."""
    together = ""
    for name in map(urllib.parse.quote, names):
        if together and len(together) + len(name) > _QUERY_LENGTH_MOST:
            yield together
            together = ""
        together += f",{name}" if together else name
    if together:
        yield together


def request(method: str, url: str) -> Any:
    """What the cluster answers.

    Raises:
        OSError: It does not.
    """
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def find_job(options: PipelineOptions, name: str) -> FlinkJob | None:
    """The newest job of this name that has not ended; None where the cluster cannot be found.

    Args:
        options: Of which `--flink_master` names the cluster; else it is looked for beside the job server.
        name: As Beam's job server gave it.
    """
    rest = _rest_of(options)
    if rest is None:
        return None
    try:
        jobs = request("GET", f"{rest}/jobs/overview")["jobs"]
    except (OSError, ValueError, KeyError):
        return None
    ours = [job for job in jobs if job["name"] == name and job["state"] not in _ENDED]
    return FlinkJob(rest, max(ours, key=lambda job: job["start-time"])["jid"]) if ours else None


def _rest_of(options: PipelineOptions) -> str | None:
    master = options.view_as(FlinkRunnerOptions).flink_master
    if not master.startswith("["):
        return master if "://" in master else f"http://{master}"
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or endpoint == "embed":
        return None
    return f"http://{endpoint.rpartition(':')[0]}:8081"


def _cause(stacktrace: str) -> str:
    """The innermost reason, in one line."""
    causes = [line for line in stacktrace.splitlines() if line.startswith("Caused by: ")]
    line = causes[-1].removeprefix("Caused by: ") if causes else stacktrace.partition("\n")[0]
    return line[:300]
