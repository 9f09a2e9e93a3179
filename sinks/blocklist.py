"""`blocklist:FILE`: sources of alerts as a list for a firewall, replaced whole whenever it changes.

| setting | meaning |
|---|---|
| `apply` | `no` (default): a dry run, the list is FILE.dry-run and FILE stays as it is; `yes`: the list is FILE |
| `format` | `plain` (default): an address a line; `nftables`: for `nft -f FILE`; `ipset`: for `ipset restore -exist` |
| `name` | of table and sets of `nftables` and `ipset` (`flowbeam`) |
| `ttl_s` | a source is listed for so long after its last alert (3600), of event time |
| `min_flows` | so many alerts make a source an offender (1) |
| `most` | entries, at most (10000); those with the oldest alerts go first |
| `never` | a file of networks, or networks separated by commas, that are never listed; without it, private ones |

Loopback, link-local, multicast and unspecified addresses are never listed. What is known of offenders is beside the
list, in FILE.json: the next job goes on with it. Time is that of the traffic: where no flows come, nobody is removed,
but the timeouts in `nftables` and `ipset` go on. Source addresses can be forged, in what nobody answered above all:
spare those that you need with `never`, and look at the dry run first.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from sinks import alerts, offenders, places
from sinks.offenders import FORMATS, PRIVATE, Network, Offenders, Rules
from sinks.outputs import SinkContext, SinkUrl
from transforms.records import InputError, Reject

_COLUMNS = ("src_ip", "flow_start_ns", "flow_end_ns", "predicted_class", "score")


class BlockList(NamedTuple):
    """A list and how it is kept.

    Attributes:
        named: What messages call it.
        place: The file of the URL.
        applied: Whether that is the list; else it is beside, with `.dry-run` behind its name.
        form: A name of `FORMATS`.
        name: Of what the firewall makes of it.
        rules: Who is listed.
    """

    named: str
    place: Path
    applied: bool
    form: str
    name: str
    rules: Rules

    @property
    def file(self) -> Path:
        """The list itself."""
        return self.place if self.applied else self.place.with_name(self.place.name + ".dry-run")

    @property
    def memory(self) -> Path:
        """What is known of offenders."""
        return self.place.with_name(self.place.name + ".json")


def local_path(url: SinkUrl) -> Path:
    """The file that the output names."""
    return places.local_path(str(url), url.path)


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `blocklist:FILE`.

    Raises:
        InputError: A setting is wrong, the file cannot be written, flows are not scored, or what an earlier job left
            cannot be read.
    """
    url.check_parameters("apply", "format", "name", "ttl_s", "min_flows", "most", "never")
    alerts.check_columns(url, context.schema)
    given = url.parameters
    for name, values in (("apply", ("no", "yes")), ("format", tuple(FORMATS))):
        if given.get(name, values[0]) not in values:
            raise InputError(f"{url}: {name}={given[name]} is not one of {', '.join(values)}")
    name = given.get("name", "flowbeam")
    if not (name.isascii() and name.isidentifier() and len(name) <= 20):  # a set's name has 31 characters at most
        raise InputError(f"{url}: name={name} is no name of at most 20 letters, digits and _")
    place = local_path(url)
    places.check_file(str(url), place)
    rules = Rules(
        round(1e9 * alerts.number(url, "ttl_s", 3600.0, 1.0, 1e9)),
        int(alerts.number(url, "min_flows", 1, 1, 1_000_000)),
        int(alerts.number(url, "most", 10_000, 1, 1_000_000)),
        _spared(url),
    )
    kept = BlockList(str(url), place, given.get("apply") == "yes", given.get("format", "plain"), name, rules)
    remembered(kept)
    return KeepBlockList(kept, context.job)


def _spared(url: SinkUrl) -> tuple[Network, ...]:
    given = url.parameters.get("never")
    if given is None:
        return PRIVATE
    path = Path(os.path.expanduser(given))
    is_file = path.is_file()
    try:
        return offenders.networks_in(path.read_text(encoding="utf-8") if is_file else given)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{url}: never={given} cannot be read: {reason}") from error
    except ValueError as error:
        wrong = str(error) if is_file else f"is no file, nor networks ({str(error).partition(': ')[2]})"
        raise InputError(f"{url}: never={given}: {wrong}") from error


def remembered(kept: BlockList) -> Offenders:
    """What an earlier job knew; nothing where there was none.

    Raises:
        InputError: The file cannot be read, or is none of ours.
    """
    try:
        return Offenders.from_bytes(kept.memory.read_bytes(), kept.rules)
    except FileNotFoundError:
        return Offenders(kept.rules)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{kept.named}: {kept.memory} cannot be read: {reason}; move it away to begin anew") from error


class KeepBlockList(beam.PTransform):
    """Keeps a block list, in one place whatever the number of workers.

    Input: record batches of scored flows, in any order, perhaps repeated: a repeated bundle lists the same sources.
    Output: no rejects.

    Args:
        kept: The list.
        job: The job's name.
    """

    def __init__(self, kept: BlockList, job: str) -> None:
        super().__init__()
        self.kept = kept
        self.job = job

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the steps that choose alerts, bring them to one place and write."""
        return (
            flows | "ChooseAlerts" >> beam.ParDo(_ChooseFn()) | "KeepList" >> beam.ParDo(_KeepFn(self.kept, self.job))
        )


class _ChooseFn(beam.DoFn):
    """Alerts, what is needed of them, and up to which event time the batch reached, if only as metadata."""

    def process(self, flows: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        if len(flows):
            now_ns = pc.max(flows["flow_end_ns"]).as_py()
            found = alerts.chosen(flows).select(list(_COLUMNS))
            yield "", found.replace_schema_metadata({"now_ns": str(now_ns)})


class _KeepFn(beam.DoFn):
    KNOWN = ReadModifyWriteStateSpec("known", BytesCoder())

    def __init__(self, kept: BlockList, job: str) -> None:
        self._kept = kept
        self._job = job
        self._cached: tuple[bytes, Offenders] | None = None
        self._written = Metrics.counter("blocklist", "lists_written")
        self._counted = Metrics.counter("blocklist", "alerts_counted")
        self._spared = Metrics.counter("blocklist", "alerts_spared")

    def process(self, keyed: tuple[str, pa.RecordBatch], known: Any = beam.DoFn.StateParam(KNOWN)) -> Iterator[Reject]:
        found = keyed[1]
        saved = known.read()
        list_ = self._known(saved)
        over = list_.advance(int(found.schema.metadata[b"now_ns"]))
        if saved is not None and not over and not len(found):
            self._cached = saved, list_
        else:
            spared = list_.add(found)
            self._spared.inc(spared)
            self._counted.inc(len(found) - spared)
            list_.generation += 1  # a later list than any that this state has written
            if write(self._kept, list_, self._job):
                self._written.inc()
            octets = list_.to_bytes()
            known.write(octets)
            self._cached = octets, list_
        return iter(())

    def _known(self, saved: bytes | None) -> Offenders:
        """What state says, not made again from it where that is what this worker wrote last."""
        cached, self._cached = self._cached, None  # a bundle that fails leaves it changed
        if saved is None:
            return remembered(self._kept)
        return cached[1] if cached is not None and cached[0] == saved else Offenders.from_bytes(saved, self._kept.rules)


def write(kept: BlockList, list_: Offenders, job: str) -> bool:
    """Replaces the list and what is known; False where a later one of the same job is there already.

    Raises:
        InputError: It cannot be written.
    """
    lines = FORMATS[kept.form](list_.listed(), list_.now_ns, kept.rules.ttl_ns, kept.name)
    memory = json.dumps({"job": job, **json.loads(list_.to_bytes())})
    lock = kept.place.with_name(f".{kept.place.name}.lock")
    with places.one_line(kept.named, kept.file), open(lock, "w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # a worker that was taken for dead may write still
        if _generation(kept, job) > list_.generation:
            return False
        texts = {kept.file: "".join(f"{line}\n" for line in lines), kept.memory: memory}
        hidden = {path: places.partial(path, job) for path in texts}
        try:
            for path, text in texts.items():
                with open(hidden[path], "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            for path in texts:  # both or none, where there is no room
                os.replace(hidden[path], path)
        finally:
            for path in hidden.values():
                path.unlink(missing_ok=True)
    return True


def _generation(kept: BlockList, job: str) -> int:
    """The number of the list that this job wrote last."""
    try:
        saved = json.loads(kept.memory.read_bytes())
    except FileNotFoundError:
        return 0
    return int(saved["generation"]) if saved.get("job") == job else 0
