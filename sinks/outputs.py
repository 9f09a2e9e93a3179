"""`--output` URLs: which module writes what, and where rejects go.

The scheme of a URL is the name of a module of this package that has `open_sink(url, context)`; nothing else lists them.
A module whose place goes without saying has a `DEFAULT_PLACE`; one with `VARIANTS = ("https",)` writes `scheme+https`,
too. Where a sink writes to a local path, the module's `local_path(url)` names it; where it keeps journals there in a
streaming job, `files(url)` says how files are made of them. Where DuckDB reads what it wrote, `query(url, context)` is
an expression of its Python module that shows the top talkers. Where a server takes what is told beside flows, too,
`open_events(url, context, dataset)` opens it for events of sensors, or for what is noticed about a model.
"""

import importlib
import pkgutil
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import apache_beam as beam
import pyarrow as pa

import sinks
from sinks import journals, places, record_files
from sinks.record_files import RecordFiles
from transforms.records import InputError

TOP_TALKERS = (
    ".aggregate('src_ip, dst_ip, count(*) AS flows, sum(fwd_ip_octets + rev_ip_octets) AS octets')"
    ".order('octets DESC').limit(10)"
)
"""What a relation of DuckDB's Python module is asked: which pairs of addresses exchanged most."""


class SinkUrl(NamedTuple):
    """One `--output`: `scheme:path?name=value&…`.

    Attributes:
        scheme: What writes it.
        path: Folder, file or address, as the scheme understands it.
        parameters: Settings of this output alone.
    """

    scheme: str
    path: str
    parameters: dict[str, str]

    def __str__(self) -> str:
        """Scheme and path: how messages name the output."""
        return f"{self.scheme}:{self.path}"

    @property
    def text(self) -> str:
        """All of it, as it may stand behind `--output`."""
        return f"{self}?{urlencode(self.parameters)}" if self.parameters else str(self)

    @property
    def module(self) -> str:
        """Name of the module that writes it: `elasticsearch` for `elasticsearch+https`."""
        return self.scheme.partition("+")[0]

    @property
    def on_standard_output(self) -> bool:
        """Whether the place is `-`."""
        return self.path == "-"

    def check_parameters(self, *known: str) -> None:
        """Refuses parameters that are not among `known`.

        Raises:
            InputError: It names the parameter and those that there are.
        """
        for name in self.parameters:
            if name not in known:
                those = f"known: {', '.join(known)}" if known else "it has none"
                raise InputError(f"{self}: unknown parameter {name!r}; {those}")


class SinkContext(NamedTuple):
    """What every sink of a job may know.

    Attributes:
        feature_sets: Names of the chosen feature sets, `cic@1`, in order.
        schema: What the record batches hold: columns of flows, then what later steps added, described by their
            metadata (`transforms.fields`).
        job: A name that no other run shares: hidden files of unfinished output carry it.
        streaming: The input does not end, or is not known to.
        file_max_age_s: Where it does not end, records are in a file of their folder this long after they came.
        retry_s: How long a server that is away or busy is tried before a block counts as not accepted.
        unsent: Folder for blocks that a server did not accept; without one, the bundle fails.
        only_check: Nothing is made, neither files nor tables; what a sink would make is in its `makes`.
    """

    feature_sets: tuple[str, ...]
    schema: pa.Schema
    job: str
    streaming: bool = False
    file_max_age_s: float = 60.0
    retry_s: float = 60.0
    unsent: Path | None = None
    only_check: bool = False


def parse_url(text: str) -> SinkUrl:
    """Takes an `--output` apart.

    Raises:
        InputError: It is no URL of a scheme that there is; the message lists the schemes.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or _module(scheme) is None:
        wrong = f"unknown scheme {scheme!r}" if colon else "no scheme"
        raise InputError(f"--output {text}: {wrong}; write SCHEME:PLACE with one of {', '.join(schemes())}")
    path, _, query = rest.partition("?")
    path = path or getattr(_module(scheme), "DEFAULT_PLACE", "")
    if not path:
        raise InputError(f"--output {text}: names no place; write {scheme}:PLACE")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise InputError(f"--output {text}: cannot read {query!r}; write ?name=value&name=value") from None
    return SinkUrl(scheme, path, dict(pairs))


def schemes() -> list[str]:
    """Every scheme there is, in alphabetical order."""
    return sorted(
        scheme
        for name in _names()
        if (module := _module(name)) is not None
        for scheme in (name, *(f"{name}+{variant}" for variant in getattr(module, "VARIANTS", ())))
    )


def open_outputs(texts: Iterable[str], context: SinkContext) -> list[tuple[SinkUrl, beam.PTransform]]:
    """The sink of each `--output`, its settings checked.

    Each takes a PCollection of Arrow record batches of flows and gives one of the `Reject`s that it refused, or None.

    Raises:
        InputError: A URL is wrong, its place cannot be written, or two outputs share one.
    """
    opened: list[tuple[SinkUrl, beam.PTransform]] = []
    taken: dict[object, SinkUrl] = {}
    for url in map(parse_url, texts):
        place = _local_path(url) or (url.path if url.on_standard_output else (url.scheme, url.path))
        if place in taken:
            raise InputError(f"--output {url}: {taken[place]} goes to the same place; give each output its own")
        taken[place] = url
        opened.append((url, _sink_module(url).open_sink(url, context)))
    return opened


def open_events(
    urls: Iterable[SinkUrl], context: SinkContext, dataset: str, schema: pa.Schema
) -> list[tuple[SinkUrl, beam.PTransform]]:
    """The sinks of those outputs that take events, too.

    Args:
        urls: The outputs.
        context: Of the job.
        dataset: Which events: `sensors` or `drift`.
        schema: Their columns.

    Raises:
        InputError: A server cannot take them.
    """
    takers = [url for url in urls if hasattr(_sink_module(url), "open_events")]
    if not takers:
        return []
    from sinks.event_documents import described  # libraries that other jobs start sooner without

    of_events = context._replace(schema=described(schema, dataset))
    opened = ((url, _sink_module(url).open_events(url, of_events, dataset)) for url in takers)
    return [(url, sink) for url, sink in opened if sink is not None]


def folder_beside(urls: Iterable[SinkUrl], name: str) -> Path:
    """Where what is not flows goes, such as `rejects`: beside the first local output, in none of the output folders.

    Raises:
        InputError: An output itself is named so.
    """
    paths = {path: url for url in urls if (path := _local_path(url)) is not None}
    folder = next(iter(paths), Path.cwd() / "flows").parent / name
    while True:
        holders = [path for path in paths if folder.is_relative_to(path)]
        if not holders:
            return folder
        if holders[0].name == name:
            raise InputError(f"{paths[holders[0]]}: that is where {name} go; choose another name for the output")
        folder = holders[0].parent / name


def query(urls: Iterable[SinkUrl], context: SinkContext) -> str | None:
    """A command for a shell that asks the first output that can be asked: who sent and received most."""
    asked = (url for url in urls if hasattr(_sink_module(url), "query") and _local_path(url))
    expression = next((_sink_module(url).query(url, context) for url in asked), None)
    if expression is None:
        return None
    code = f"import duckdb; print({expression})"
    interpreter = "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)
    return f"{interpreter} -c " + (shlex.quote(code) if set(code) & set('"$`!\\') else f'"{code}"')


def remove_partial(urls: Iterable[SinkUrl], rejects: Path, job: str) -> None:
    """Removes what an interrupted or failed job left under hidden names; whole files stay."""
    for path in (*filter(None, map(_local_path, urls)), rejects):
        places.remove_partial(path, job)


def adopt_left(urls: Iterable[SinkUrl], beside: Iterable[RecordFiles]) -> None:
    """Completes files of earlier streaming jobs whose processes were killed; those of live ones stay.

    Args:
        urls: The outputs.
        beside: What else the job writes.

    Raises:
        InputError: A folder cannot be written.
    """
    for files in _record_files(urls, beside):
        record_files.adopt(files)


def complete(urls: Iterable[SinkUrl], beside: Iterable[RecordFiles], job: str, wait_s: float = 10.0) -> int:
    """Completes all files of a streaming job that has ended or is being stopped.

    What this process holds is completed at once, and what comes later is refused: such a bundle fails. Files of the
    job's other processes are completed as these end.

    Args:
        urls: The outputs.
        beside: What else the job writes.
        job: The job's name.
        wait_s: How long to wait for other processes to end.

    Returns:
        How many files are still held by processes that live; they appear within `file_max_age_s`.

    Raises:
        InputError: A folder cannot be written; its records wait there, in hidden files, for the next job.
    """
    journals.end(job)
    return record_files.wait_for_others(_record_files(urls, beside), job, wait_s)


def _record_files(urls: Iterable[SinkUrl], beside: Iterable[RecordFiles]) -> list[RecordFiles]:
    of_flows = [_sink_module(url).files(url) for url in urls if hasattr(_sink_module(url), "files")]
    return [*of_flows, *beside]


def _sink_module(url: SinkUrl) -> ModuleType:
    module = _module(url.scheme)
    assert module is not None
    return module


def _local_path(url: SinkUrl) -> Path | None:
    name = getattr(_sink_module(url), "local_path", None)
    return None if name is None else name(url)


def _module(scheme: str) -> ModuleType | None:
    name, _, variant = scheme.partition("+")
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name not in _names():
        return None
    module = importlib.import_module(f"sinks.{name}")
    there_is = scheme == name or variant in getattr(module, "VARIANTS", ())
    return module if there_is and hasattr(module, "open_sink") else None


def _names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(sinks.__path__)]
