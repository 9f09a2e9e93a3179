"""Scored flows: what the columns say, on a real runner, from real forests."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from model_testing import FEATURES, SET, made_up_flows, save, train

from transforms import coders, fields
from transforms.model.inputs import model_inputs
from transforms.model.live import LiveModel, ScoreSettings
from transforms.records import InputError
from transforms.score import EXPLANATION, SCORE, ScoreFlows, score

FLOWS = made_up_flows(1000)


@pytest.fixture(scope="module")
def trees():
    return train(FLOWS)


@pytest.fixture(scope="module")
def folder(trees, tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "office"
    save(trees, place)
    return str(place)


def scored(flows, folder, **settings):
    chosen = ScoreSettings(folder, **settings)
    return score([flows], LiveModel(chosen), chosen)[0][0]


def test_the_columns_say_what_the_forest_says(trees, folder):
    """The flows as they were, then score, class, alert and model."""
    flows = scored(FLOWS, folder)
    probabilities = trees.predict(model_inputs(FLOWS, SET, FEATURES))
    assert flows.select(FLOWS.schema.names) == FLOWS
    assert flows.schema == pa.schema([*FLOWS.schema, *fields.arrow_schema(SCORE)])
    np.testing.assert_allclose(flows["score"], 1 - probabilities[:, 0], rtol=1e-6)
    assert flows["is_alert"].to_pylist() == [value >= 0.5 for value in flows["score"].to_pylist()]
    assert set(flows["predicted_class"].filter(flows["is_alert"]).to_pylist()) == {"flood", "scan"}
    assert flows["model_id"].unique().to_pylist() == [ScoreSettings(folder).model().id]
    assert flows["score"].null_count == 0


def test_the_threshold_may_be_another(folder):
    flows = scored(FLOWS, folder, threshold=0.0)
    assert all(flows["is_alert"].to_pylist())
    assert "benign" not in flows["predicted_class"].to_pylist()
    np.testing.assert_array_equal(flows["score"], scored(FLOWS, folder)["score"])


@pytest.mark.parametrize("size", [1, 13])
def test_batches_do_not_change_scores(folder, size):
    chosen = ScoreSettings(folder, explain=2)
    live = LiveModel(chosen)
    (whole,), alerts = score([FLOWS], live, chosen)
    batches = [FLOWS.slice(at, size) for at in range(0, 30 * size, size)]
    parts = [score([batch], live, chosen)[0][0] for batch in batches]
    assert pa.Table.from_batches(parts) == pa.Table.from_batches([whole.slice(0, 30 * size)])
    assert score(batches, live, chosen)[0] == parts
    assert score([FLOWS, FLOWS.slice(0, 0), FLOWS], live, chosen) == ([whole, whole.slice(0, 0), whole], 2 * alerts)


def test_alerts_are_explained(folder):
    """By features that the rule of the classes is about, with the value that the flow has; other flows are not."""
    flows = scored(FLOWS, folder, explain=2)
    assert flows.schema.names[-1] == "explanation"
    assert flows.drop_columns("explanation") == scored(FLOWS, folder)
    assert flows["explanation"].is_null().to_pylist() == [not alert for alert in flows["is_alert"].to_pylist()]
    named = [why for why in flows["explanation"].to_pylist() if why is not None]
    assert max(map(len, named)) == 2
    first = [why[0]["feature"] for why in named]
    assert (first.count("fwd_packets") + first.count("flow_syn_count")) / len(first) > 0.95
    for flow in flows.filter(flows["is_alert"]).slice(0, 50).to_pylist():
        assert [why["value"] for why in flow["explanation"]] == [flow[why["feature"]] for why in flow["explanation"]]


@pytest.mark.parametrize("explain", [0, 2])
def test_no_flows(folder, explain):
    assert scored(FLOWS.slice(0, 0), folder, explain=explain).num_rows == 0


def test_no_alerts(folder):
    assert scored(FLOWS, folder, explain=2, threshold=1.0)["explanation"].null_count == len(FLOWS)


def test_on_a_runner_batches_stay_whole(folder):
    """One batch out for each in, through the coder of record batches, and counted."""
    step = ScoreFlows(ScoreSettings(folder, explain=1))
    batches = [FLOWS.slice(0, 600), FLOWS.slice(600)]
    expected = [scored(batch, folder, explain=1) for batch in batches]

    def as_expected(found):
        assert sorted(found, key=len) == sorted(expected, key=len)

    pipeline = beam.Pipeline(runner=FnApiRunner())
    flows = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: batches).with_output_types(pa.RecordBatch)
    found = flows | "ScoreFlows" >> step
    assert isinstance(beam.coders.registry.get_coder(found.element_type), coders.RecordBatchCoder)
    assert_that(found | "AnotherStage" >> beam.Reshuffle(), as_expected)
    result = pipeline.run()
    result.wait_until_finish()
    counters = {counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]}
    assert counters["flows_scored"] == 1000
    assert counters["alerts_raised"] == sum(batch["is_alert"].to_pylist().count(True) for batch in expected)
    assert step.fields == (*SCORE, EXPLANATION)


def test_a_folder_without_a_model_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        ScoreFlows(ScoreSettings(str(tmp_path / "nowhere")))
