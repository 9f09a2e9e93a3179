"""What a running job is updated by: names of steps, of their state, and the layout of what is in it.

A change that another version's state cannot be read with needs an entry in CHANGELOG.md that says so. Then:
`python -m tests.pipelines.test_update_interface` writes the new interface.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
KNOWN = Path(__file__).with_name("update_interface.json")
ARGUMENTS = ("--runner=PrismRunner", "--streaming", "--output=parquet:flows")


def interface(folder: Path) -> dict[str, Any]:
    """As the code has it."""
    import apache_beam as beam
    from apache_beam.portability import common_urns

    from pipelines.endless import EndlessJob
    from pipelines.flows import parse_options, plan_of
    from transforms.rules import Rules
    from transforms.settings import FlowSettings

    (folder / "spool").mkdir()
    plan = plan_of(parse_options([*ARGUMENTS, f"--input=spool:{folder}/spool"]))
    proto = EndlessJob(plan).pipeline().to_runner_api()
    steps: list[str] = []
    state: dict[str, Any] = {}
    for transform in proto.components.transforms.values():
        name = transform.unique_name.replace(str(folder), "FOLDER")
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            steps.append(name)
            payload = beam.portability.api.beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            kept = {key: spec.WhichOneof("spec") for key, spec in sorted(payload.state_specs.items())}
            if kept or payload.restriction_coder_id:
                state[name] = {"state": kept, "timers": sorted(payload.timer_family_specs)}
    settings = FlowSettings(Rules())
    table = settings.table(settings.columns(), "local")
    layout = json.dumps([str(array.dtype.descr) for array in vars(table).values() if hasattr(array, "dtype")])
    return {
        "steps": sorted(steps),
        "state": state,
        "table": hashlib.sha256(layout.encode()).hexdigest()[:16],
    }


def test_a_running_job_can_be_updated(tmp_path, monkeypatch):
    """What is known of steps, states and tables is what the code has."""
    monkeypatch.chdir(tmp_path)
    found = interface(tmp_path)
    known = json.loads(KNOWN.read_text(encoding="utf-8"))
    advice = "running jobs cannot be updated over this change: say so in CHANGELOG.md, then see this module's docstring"
    for part in ("steps", "state", "table"):
        assert found[part] == known[part], advice


def test_no_step_is_named_after_a_line(tmp_path, monkeypatch):
    """An unlabelled lambda would be, and move with it."""
    monkeypatch.chdir(tmp_path)
    named = [step for step in interface(tmp_path)["steps"] if ".py:" in step and " at core.py:" not in step]
    assert named == []


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        KNOWN.write_text(json.dumps(interface(Path(name)), indent=2) + "\n", encoding="utf-8")
    sys.exit(0)
