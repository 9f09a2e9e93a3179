"""The job as Dataflow would get it, up to its submission: steps, the workers' image, no step of another language."""

import uuid

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import WorkerOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult, DataflowRunner
from apache_beam.transforms.environments import DockerEnvironment

from pipelines import endless, flows
from pipelines.endless import EndlessJob

IMAGE = "flowbeam-worker:1"
PLACES = ("--project=flowbeam-test", "--region=europe-west1", "--temp_location=gs://flowbeam-test/temp",
          "--staging_location=gs://flowbeam-test/staging")  # fmt: skip


@pytest.fixture
def graph(pubsub, monkeypatch, tmp_path):
    """The pipeline's protocol buffer."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    monkeypatch.chdir(tmp_path)
    pubsub.create_topic(name := f"dataflow-{uuid.uuid4().hex}", f"{name}-reader")
    words = ("--runner=DataflowRunner", "--streaming", *PLACES, f"--sdk_container_image={IMAGE}")
    plan = flows.plan_of(flows.parse_options([*words, f"--input=pubsub://{pubsub.project}/{name}-reader"]))
    environment = DockerEnvironment.from_container_image(plan.beam_options.view_as(WorkerOptions).sdk_container_image)
    return EndlessJob(plan).pipeline().to_runner_api(default_environment=environment)


def test_the_graph_is_for_dataflow(graph):
    """Beam's own Pub/Sub reader, Python alone, the image that was named, and names of steps that stay."""
    transforms = graph.components.transforms.values()
    assert any(one.spec.urn == common_urns.composites.PUBSUB_READ.urn for one in transforms)
    environments = graph.components.environments.values()
    images = {
        beam_runner_api_pb2.DockerPayload.FromString(one.payload).container_image
        for one in environments
        if one.urn == common_urns.environments.DOCKER.urn
    }
    assert images == {IMAGE}
    assert not [one for one in transforms if "expansion" in one.spec.urn]
    names = {one.unique_name.partition("/")[0] for one in transforms}
    assert {"DecodePackets", "AssembleFlows", "Write parquet:flows", "WriteRejects", "WriteSensorEvents"} <= names


def test_what_dataflow_lacks_is_one_line(pubsub, monkeypatch, tmp_path, capsys):
    """A project, a bucket: Beam's list of them, without a traceback."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    monkeypatch.chdir(tmp_path)
    pubsub.create_topic(name := f"dataflow-{uuid.uuid4().hex}", f"{name}-reader")
    words = ["--runner=DataflowRunner", "--streaming", f"--input=pubsub://{pubsub.project}/{name}-reader"]
    assert flows.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flowbeam: --runner=DataflowRunner: ")
    assert "project" in line


def test_a_template_is_described_and_not_waited_for(pubsub, monkeypatch, tmp_path, capsys):
    """Dataflow's launcher runs the command with --template_location: Beam describes the job, and there is none."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    monkeypatch.chdir(tmp_path)
    described = DataflowPipelineResult(None, DataflowRunner())
    monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: described)
    monkeypatch.setattr(endless, "compile_kernels", lambda *settings: None)
    pubsub.create_topic(name := f"dataflow-{uuid.uuid4().hex}", f"{name}-reader")
    words = ["--runner=DataflowRunner", *PLACES, "--template_location=gs://flowbeam-test/template"]
    assert flows.main([*words, f"--input=pubsub://{pubsub.project}/{name}-reader"]) == 0
    assert capsys.readouterr().err == ""
