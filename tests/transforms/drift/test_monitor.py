"""The transform on runners: bounded input at once, endless input as it comes."""

import logging

import apache_beam as beam
import drift_testing
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from apache_beam.transforms.window import TimestampedValue
from drift_testing import NOON_NS, SECOND_NS, scored, usual, write_model

from transforms.coders import RecordBatchCoder
from transforms.drift import rows
from transforms.drift.answers import LABELS
from transforms.drift.inputs import InputsRule
from transforms.drift.judge_answers import AnswersRule
from transforms.drift.monitor import MonitorDrift
from transforms.records import InputError

RULE = InputsRule(1000 * SECOND_NS, 100 * SECOND_NS)

WRONG_FROM = 2500


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models") / "small"


@pytest.fixture(scope="module")
def model(folder):
    return write_model(folder)


def flows_of(model):
    """4,000 flows, one a second; from 3,000 on they last ten times as long, from 2,500 on they are attacks."""
    columns = usual(4000, seed=9)
    columns["flow_duration_us"][3000:] *= 10
    return scored(model.id, range(4000), columns)


def labels_of(flows):
    ends = flows["flow_end_ns"].to_numpy()
    classes = np.where(ends < NOON_NS + WRONG_FROM * SECOND_NS, "benign", "syn_flood")
    return pa.RecordBatch.from_arrays([flows["flow_id"].cast(pa.binary(16)), pa.array(classes.tolist())], schema=LABELS)


def sliced(batch, size, order=None):
    pieces = [batch.slice(at, size) for at in range(0, len(batch), size)]
    return pieces if order is None else [pieces[at] for at in order]


def run(pipeline, flows, monitor):
    """The rows, and the counters."""
    drift_testing.TOLD.clear()
    _ = flows | monitor | beam.Map(drift_testing.tell)
    result = pipeline.run()
    result.wait_until_finish()
    return list(drift_testing.TOLD), {
        counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]
    }


def bounded(folder, batches, labels=None):
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    flows = pipeline | "Flows" >> beam.Create(batches, reshuffle=False)
    returned = pipeline | "Labels" >> beam.Create(labels or [], reshuffle=False)
    if labels is None:
        return run(pipeline, flows, MonitorDrift(folder, RULE))
    return run(pipeline, (flows, returned), MonitorDrift(folder, RULE, with_labels=True))


def test_two_alarms_that_are_not_confused(folder, model, caplog):
    """Inputs change after the model has decayed; each has its row, its counter and one warning."""
    flows = flows_of(model)
    with caplog.at_level(logging.WARNING):
        told, counters = bounded(folder, sliced(flows, 700), sliced(labels_of(flows), 900))
    by_event = {event: [row for row in told if row["event"] == event] for event in rows.EVENTS}
    assert [(row["window_start_ns"] - NOON_NS) // SECOND_NS for row in by_event[rows.INPUTS_COMPARED]] == [
        0, 1000, 2000
    ]  # fmt: skip
    (changed,) = by_event[rows.INPUTS_CHANGED]
    assert (changed["window_start_ns"] - NOON_NS) // SECOND_NS == 3000
    assert changed["features"][0]["feature"] == "Flow Duration"
    (decayed,) = by_event[rows.MODEL_DECAYED]
    assert WRONG_FROM < (decayed["window_end_ns"] - NOON_NS) // SECOND_NS < WRONG_FROM + 10
    assert [row["flows"] for row in by_event[rows.ANSWERS_COMPARED]] == [1000] * 4
    assert {name: counters[name] for name in ("windows_compared", "windows_changed", "decays_found")} == {
        "windows_compared": 4,
        "windows_changed": 1,
        "decays_found": 1,
    }
    assert (counters["flows_counted"], counters["answers_judged"], counters["answers_wrong"]) == (4000, 4000, 1500)
    inputs, answers = (
        [record.message for record in caplog.records if record.message.startswith(begin)]
        for begin in ("inputs changed: ", "model decayed: ")
    )
    assert len(inputs) == len(answers) == 1
    assert "mean PSI" in inputs[0]
    assert f"{model.id} was wrong about " in answers[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_order_and_batches_make_no_difference(folder, model, seed):
    flows = flows_of(model)
    expected, _ = bounded(folder, [flows], [labels_of(flows)])
    random = np.random.default_rng(seed)
    size = int(random.integers(100, 1500))
    order = random.permutation(-(-len(flows) // size))
    told, _ = bounded(folder, sliced(flows, size, order), sliced(labels_of(flows), size, order[::-1]))
    assert sorted(map(repr, told)) == sorted(map(repr, expected))


def test_without_labels_there_are_only_inputs(folder, model):
    told, _ = bounded(folder, [flows_of(model)])
    assert {row["event"] for row in told} == {"inputs_compared", "inputs_changed"}


def test_interim_records_and_other_models_flows_are_left_out(folder, model):
    told, counters = bounded(
        folder,
        [
            scored(model.id, range(300)),
            scored(model.id, range(300, 600), record_kind="interim"),
            scored("other-000000000000", range(600, 900)),
            scored(None, range(900, 950)),
            scored(model.id, []),
        ],
    )
    assert [row["flows"] for row in told] == [300]
    assert counters["flows_of_unknown_models"] == 300


def test_a_model_that_took_the_place_has_rows_of_its_own(tmp_path):
    """Flows of the one before are compared with its reference while they come."""
    folder = tmp_path / "m"
    first = write_model(folder)
    monitor = MonitorDrift(folder, RULE)
    monitor.models.look()
    second = write_model(folder, seed=2)
    assert first.id != second.id
    assert [monitor.models.of(model.id).model.id for model in (second, first)] == [second.id, first.id]
    (folder / "reference.json").write_text("{")
    assert monitor.models.of("m-000000000000") is None


def test_a_model_without_a_reference_is_refused(folder, model, tmp_path):
    write_model(tmp_path / "m", judged=0)
    MonitorDrift(tmp_path / "m", RULE)
    with pytest.raises(InputError, match="was never judged"):
        MonitorDrift(tmp_path / "m", RULE, with_labels=True)
    (tmp_path / "m" / "reference.json").unlink()
    with pytest.raises(InputError, match=r"reference\.json is missing"):
        MonitorDrift(tmp_path / "m", RULE)


@pytest.mark.parametrize("labels_first", [False, True], ids=["labels-last", "labels-first"])
def test_endless_flows_and_labels_give_the_same_rows(folder, model, prism, labels_first):
    """Labels may come before their flow or long after it."""
    flows = flows_of(model)
    expected, _ = bounded(folder, [flows], [labels_of(flows)])
    batches, returned = sliced(flows, 500), sliced(labels_of(flows), 800)
    told, counters = endless(prism, folder, [*returned, *batches] if labels_first else [*batches, *returned])
    assert [row for row in told if row["event"].startswith("inputs")] == [
        row for row in expected if row["event"].startswith("inputs")
    ]
    decayed = [row for row in told if row["event"] == "model_decayed"]
    assert decayed[0]["window_end_ns"] > NOON_NS + WRONG_FROM * SECOND_NS
    assert [row["event"] for row in told if row["event"] in (rows.MODEL_DECAYED, rows.MODEL_RECOVERED)][-1] == (
        rows.MODEL_DECAYED
    )
    assert counters["answers_judged"] == sum(row["flows"] for row in told if row["event"] == "answers_compared") == 4000


def endless(prism, folder, elements):
    whole = "--experiments=prism_disable_sdf_split"  # as the main job says: else Prism loses state where it is slow
    pipeline = beam.Pipeline(options=PipelineOptions([*prism, whole, "--streaming"]))
    stream = test_stream.TestStream(coder=RecordBatchCoder())
    for element in elements:
        stream = stream.add_elements([TimestampedValue(element, 0)])
    both = pipeline | stream.advance_watermark_to_infinity()
    flows = both | "Flows" >> beam.Filter(lambda batch: "label" not in batch.schema.names)
    labels = both | "Labels" >> beam.Filter(lambda batch: "label" in batch.schema.names)
    patient = RULE._replace(lateness_ns=10_000 * SECOND_NS)  # a runner may hand on what came first last
    return run(pipeline, (flows, labels), MonitorDrift(folder, patient, AnswersRule(), with_labels=True))
