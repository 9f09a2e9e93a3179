import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
from sink_testing import bundle, flow_id, flows, schema_of, write

from sinks import outputs, standard_output
from sinks.csv import CommaSeparated
from sinks.outputs import SinkContext
from transforms.features import sets
from transforms.records import InputError


def context(streaming):
    return SinkContext(("cic@1",), schema_of(), "lines", streaming)


def test_lines_are_those_of_a_file(tmp_path, capfd):
    """Of final records; `FILE` and `-` differ in nothing else."""
    batch = flows([1, 2], fwd_packets=7)
    counters = write("csv:-", [batch, flows([3], record_kind="interim")])
    write(f"csv:{tmp_path}/x", [batch])
    assert capfd.readouterr().out == (tmp_path / "x").read_text()
    assert counters == {"flows_written": 2}


def test_each_bundle_s_lines_are_there_when_it_is_finished(capfd):
    """Under one header, and in whole lines; a failed bundle writes none."""
    step = standard_output._WriteLines("csv", "bundles", "cic@1", CommaSeparated())
    shown = []
    for number in range(3):
        step.start_bundle()
        list(step.process(flows([99])))
        bundle(step, [flows([number]), flows([])])
        shown.append(capfd.readouterr().out)
    bundle(step, [])
    assert [text.count("\n") for text in shown] == [2, 1, 1]
    header, *rows = csv.reader(io.StringIO("".join(shown)))
    assert header == sets.get("cic@1").schema.names
    assert len(rows) == 3


def test_json_lines_go_to_a_pipe():
    """As in `… --output jsonl:- | jq`."""
    ((_, sink),) = outputs.open_outputs(
        ["jsonl:-?features=flowbeam@1"], SinkContext(("flowbeam@1",), schema_of(["flowbeam@1"]), "pipe", True)
    )
    read, written = os.pipe()
    with os.fdopen(read) as lines, pytest.MonkeyPatch.context() as patch, os.fdopen(written, "w") as out:
        patch.setattr(sys, "stdout", out)
        bundle(sink.step, [flows([1], ("flowbeam@1",))])
        out.close()
        assert [json.loads(line)["flow_id"] for line in lines] == [flow_id(1).hex()]


def test_a_long_bundle_is_not_held(capfd, monkeypatch):
    monkeypatch.setattr(standard_output, "HELD_OCTETS", 1)
    step = standard_output._WriteLines("csv", "long", "cic@1", CommaSeparated())
    step.start_bundle()
    list(step.process(flows([1])))
    assert capfd.readouterr().out.count("\n") == 2


def test_a_reader_that_is_gone_is_one_line(monkeypatch):
    """As in `… | head -1`; nothing is left to be tried again at the exit."""
    read, written = os.pipe()
    with os.fdopen(written, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        os.close(read)
        with pytest.raises(InputError, match="standard output: its reader is gone"):
            standard_output.write(b"x\n")
        monkeypatch.undo()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_what_cannot_be_written_is_one_line(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(InputError, match="standard output: cannot be written: No space left on device"):
            standard_output.write(b"x\n")
        monkeypatch.undo()


@pytest.mark.parametrize("output", ["csv:{}/x", "jsonl:{}/x", "duckdb:{}/x"])
def test_a_file_for_endless_input_is_refused_when_the_pipeline_is_built(output, tmp_path):
    """It would never be whole."""
    output = output.format(tmp_path)
    with pytest.raises(InputError) as error:
        outputs.open_outputs([output], context(True))
    assert str(error.value) == f"{output}: is written when the input ends; for endless input choose parquet:DIR"
    assert len(outputs.open_outputs([output], context(False))) == 1


def test_standard_output_is_one_place():
    """It is beside nothing, has no query, and two outputs cannot share it."""
    (csv_url, _), (parquet_url, _) = outputs.open_outputs(["csv:-", "parquet:a/flows"], context(False))
    assert outputs.folder_beside([csv_url, parquet_url], "rejects") == Path("a/rejects").absolute()
    assert outputs.query([csv_url], context(False)) is None
    for other in ("jsonl:-", "terminal:"):
        with pytest.raises(InputError, match="goes to the same place"):
            outputs.open_outputs(["csv:-", other], context(True))
