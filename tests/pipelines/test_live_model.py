"""A new model while a line is live: taken up without a restart, told once, and watched from then on."""

import contextlib

import duckdb
import numpy as np
import pytest
from fault_testing import LIMIT_S, Job, Sensor, capture_of, times_of, topic_of
from model_testing import FEATURES, SET, described, made_up_flows, train
from servers.processes import wait_until

from transforms.model.folder import FOREST, write_model_folder
from transforms.model.inputs import model_inputs
from transforms.model.reference import Reference

pytestmark = pytest.mark.slow

RATE = 1500
FLOWS = made_up_flows(300)


@pytest.fixture(params=["prism", pytest.param("flink", marks=pytest.mark.xdist_group("flink"))])
def runner(request):
    """The options of each runner."""
    server = request.getfixturevalue(request.param)
    if request.param == "prism":
        return server
    return [*server.pipeline_args(), f"--flink_master={server.rest_url.removeprefix('http://')}"]


def put_model(folder, trees):
    """Makes a model folder or replaces it; its id."""
    model, inputs = described(trees), model_inputs(FLOWS, SET, FEATURES)
    columns = {name: inputs[name] for name in model.features}
    reference = Reference.of(columns, trees.predict(inputs)[:, 0], np.zeros(len(FLOWS), bool))

    def files(hidden):
        trees.save(str(hidden / FOREST))
        (hidden / "reference.json").write_text(reference.to_json())

    return write_model_folder(folder, model, files).id


def rows_in(folder, query):
    """The answer to a query of the records in the files of a folder; nothing while there are none."""
    with contextlib.suppress(duckdb.IOException):
        return duckdb.sql(query.format(f"'{folder}/**/*.parquet'")).fetchall()
    return []


def scored_by(folder):
    """Which models scored the flows that are in files."""
    return {name for (name,) in rows_in(folder / "live", "SELECT DISTINCT model_id FROM {}")}


def test_a_new_model_is_taken_up_while_the_line_is_live(runner, kafka, compiled, tmp_path):
    """One line says so; flows that begin later are scored by it, none is lost, and both models are watched."""
    capture = capture_of(tmp_path, 20_000)
    old = put_model(tmp_path / "model", train(FLOWS))
    words = ("--stop_at_end", "--sensors=north", "--file_max_age_s=1", "--model", tmp_path / "model")
    with topic_of(kafka, 2) as topic:
        url = f"kafka://{kafka.bootstrap}/{topic}"
        drift = ("--drift_window_s=5", "--drift", tmp_path / "drift")
        with Job(tmp_path, runner, url, *words, *drift) as job, Sensor(tmp_path, url, capture, "north", RATE) as sensor:
            wait_until(lambda: scored_by(tmp_path) or not job.alive, LIMIT_S, "flows are scored")
            assert scored_by(tmp_path) == {old}, job.said
            new = put_model(tmp_path / "model", train(FLOWS, num_trees=5))
            wait_until(lambda: taken_up(job) or not job.alive, LIMIT_S, "the new model is taken up")
            captured = sensor.captured
            sensor.has_captured(captured + 6000)
            sensor.stops()
            job.ends()
    assert taken_up(job) == [f"flowbeam: model {new} takes the place of {old}"]
    last_ns = int(times_of(capture, captured + RATE)[-1])
    later = rows_in(tmp_path / "live", f"SELECT DISTINCT model_id FROM {{}} WHERE flow_start_ns > {last_ns}")
    assert later == [(new,)]
    assert scored_by(tmp_path) == {old, new}
    flows = rows_in(tmp_path / "live", "SELECT model_id, count(*) FROM {} GROUP BY 1 ORDER BY 1")
    watched = "SELECT model_id, sum(flows)::BIGINT FROM {} WHERE event LIKE 'inputs_%' GROUP BY 1 ORDER BY 1"
    assert rows_in(tmp_path / "drift", watched) == flows


def taken_up(job):
    """The lines that tell of a new model."""
    return [line for line in job.said if "takes the place" in line]
