import os
import subprocess
import sys
from pathlib import Path

import pytest
from sink_testing import flows, schema_of, write

from sinks import journals, outputs, places
from sinks.journal import Journal
from sinks.outputs import SinkContext, SinkUrl
from sinks.rejects import RejectFiles
from sinks.sensors import SensorFiles
from transforms.records import InputError, Reject, SensorEvent

CONTEXT = SinkContext(("cic@1",), schema_of(), "test")


def test_every_scheme_is_a_module_with_open_sink():
    assert {"csv", "duckdb", "jsonl", "parquet"} <= set(outputs.schemes())
    assert not {"text", "rejects", "places", "outputs", "background", "whole_file"} & set(outputs.schemes())


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("parquet:flows", SinkUrl("parquet", "flows", {})),
        ("csv:a/b c.csv?features=cic@1", SinkUrl("csv", "a/b c.csv", {"features": "cic@1"})),
        ("jsonl:/data/x:y.jsonl", SinkUrl("jsonl", "/data/x:y.jsonl", {})),
    ],
)
def test_a_url_is_taken_apart(text, url):
    assert outputs.parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flows", "no scheme; write SCHEME:PLACE with one of"),
        ("parket:flows", "unknown scheme 'parket'"),
        ("text:flows", "unknown scheme 'text'"),
        ("../etc:flows", "unknown scheme '../etc'"),
        ("parquet:", "names no place"),
        ("csv:x?features", "cannot read 'features'"),
        ("parquet:x?level=3", "parquet:x: unknown parameter 'level'; known: compression"),
        ("csv:x?sets=cic@1", "unknown parameter 'sets'; known: features"),
        ("csv:x?features=nfstream@1", "nfstream@1 is not among the chosen feature sets, cic@1"),
        ("csv:x?features=cic@9", "unknown feature set 'cic@9'"),
        ("parquet://flows", "write parquet:flows or parquet:/flows"),
        ("csv:missing/x.csv", "there is no folder"),
        ("csv:.", "is a folder"),
        ("parquet:file", "file is not a folder"),
        ("parquet:file/flows", "file is not a folder"),
        ("duckdb:file", "is no DuckDB database"),
    ],
)
def test_a_wrong_output_is_one_clear_line(text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("something that is not a database")
    with pytest.raises(InputError) as error:
        outputs.open_outputs([text], CONTEXT)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("text", ["parquet:flows", "csv:x.csv", "duckdb:x.duckdb"])
def test_a_place_that_cannot_be_written_is_refused_when_the_pipeline_is_built(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"cannot write in .*; make it writable or choose another --output"):
        outputs.open_outputs([text], CONTEXT)


def test_two_outputs_cannot_share_a_place(tmp_path):
    with pytest.raises(InputError, match="goes to the same place"):
        outputs.open_outputs([f"csv:{tmp_path}/x", f"jsonl:{tmp_path}/../{tmp_path.name}/x"], CONTEXT)


def test_several_feature_sets_need_a_choice(tmp_path):
    context = SinkContext(("cic@1", "nfstream@1"), schema_of(["cic@1", "nfstream@1"]), "test")
    with pytest.raises(InputError, match=r"of cic@1, nfstream@1; say which: 'csv:.*x\?features=cic@1'"):
        outputs.open_outputs([f"csv:{tmp_path}/x"], context)
    assert len(outputs.open_outputs([f"csv:{tmp_path}/x?features=nfstream@1"], context)) == 1


@pytest.mark.parametrize(
    ("texts", "folder"),
    [
        (["parquet:flows"], "rejects"),
        (["parquet:a/flows"], "a/rejects"),
        (["csv:x.csv", "parquet:flows"], "rejects"),
        (["csv:flows/x.csv", "parquet:flows"], "rejects"),
        ([], "rejects"),
    ],
)
def test_rejects_lie_beside_the_output_and_in_none(texts, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert outputs.folder_beside(map(outputs.parse_url, texts), "rejects") == tmp_path / folder


def test_an_output_cannot_take_the_rejects_name():
    with pytest.raises(InputError, match="that is where rejects go"):
        outputs.folder_beside([outputs.parse_url("parquet:rejects")], "rejects")


@pytest.mark.parametrize("output", ["parquet:{}/flows", "csv:{}/x.csv", "jsonl:{}/x.jsonl", "duckdb:{}/x.duckdb"])
def test_an_interrupted_job_is_cleaned_up_without_touching_whole_files(output, tmp_path):
    output = output.format(tmp_path)
    write(output, [flows([1])])
    whole = {path for path in tmp_path.rglob("*") if path.is_file()}
    url = outputs.parse_url(output)
    path = tmp_path / url.path.rpartition("/")[2]
    for job in ("test", "another"):
        hidden = places.partial_in(path, job) if path.is_dir() else places.partial(path, job)
        hidden.mkdir()
        (hidden / "part").write_bytes(b"x")
    outputs.remove_partial([url], tmp_path / "rejects", "test")
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - whole
    assert [path.parent.name.rpartition("-")[0].rpartition(".")[2] for path in left] == ["partial-another"]
    assert all(path.exists() for path in whole)


def test_looking_sinks_up_loads_nothing_heavy():
    """A wrong URL, or a capture without flows, answers at once: no library is loaded that Beam does not load itself."""
    code = """if True:
        import sys, apache_beam, transforms.features.sets
        before = set(sys.modules)
        from sinks import outputs
        outputs.schemes()
        print([name for name in ("duckdb", "pyarrow.parquet", "pyarrow.csv") if name in set(sys.modules) - before])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_stopped_job_completes_its_folders_and_leaves_others(tmp_path):
    """Flows, rejects and events of sensors; journals of dead processes, too; a job that lives keeps its own."""
    (tmp_path / "flows").mkdir()
    urls = [outputs.parse_url(f"parquet:{tmp_path}/flows"), outputs.parse_url(f"csv:{tmp_path}/x.csv")]
    beside = [RejectFiles(tmp_path / "rejects"), SensorFiles(tmp_path / "sensors")]
    batch = flows([1])
    dead = Journal.create(tmp_path / "flows", "dead", batch.schema)
    dead.append([batch])
    dead.release()
    outputs.adopt_left(urls, beside)
    assert len(list((tmp_path / "flows").glob("*/*.parquet"))) == 1
    elements = (Reject("parse", "late", "x", 1, b""), SensorEvent("tap", 1, 0, "started", 2))
    for files, element in zip(beside, elements, strict=True):
        for job in ("stopping", "living"):
            journals.keep(files, job, 3600.0).append([files.batch([element])])
    assert outputs.complete(urls, beside, job="stopping", wait_s=0.0) == 0
    for folder in (tmp_path / "rejects", tmp_path / "sensors"):
        assert len(list(folder.glob("*/*.parquet"))) == 1
        assert len(list(folder.glob(".*"))) == 1
    assert outputs.complete(urls, beside, job="living", wait_s=0.0) == 0


def test_events_of_sensors_lie_beside_the_output():
    urls = [outputs.parse_url("parquet:a/flows")]
    assert outputs.folder_beside(urls, "sensors") == Path("a/sensors").absolute()
    with pytest.raises(InputError, match="that is where sensors go"):
        outputs.folder_beside([outputs.parse_url("parquet:sensors")], "sensors")
