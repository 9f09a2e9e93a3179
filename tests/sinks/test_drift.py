import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sink_testing import run

from sinks import journals
from sinks.drift import WriteDrift
from transforms.drift import rows
from transforms.records import InputError

GIVEN = [
    rows.batch(
        [
            {"event": rows.INPUTS_COMPARED, "psi": 0.01, "features": [{"feature": "Flow Duration", "psi": 0.02}]},
            {"event": rows.MODEL_DECAYED, "wrong": 7, "error_rate": 0.07},
        ]
    ),
    rows.batch([{"event": rows.INPUTS_CHANGED, "psi": 0.5, "features": []}]),
]


@pytest.mark.parametrize("streaming", [False, True], ids=["bounded", "streaming"])
def test_rows_are_written_as_they_are(streaming, tmp_path):
    """What a row does not tell is null."""
    folder, job = tmp_path / "drift", f"drift-{streaming}"
    counters = run(GIVEN, WriteDrift(folder, rows.SCHEMA, job, streaming))
    journals.end(job)
    written = duckdb.sql(
        f"SELECT event, psi, wrong, features[1].feature FROM read_parquet('{folder}/**/*.parquet') ORDER BY event"
    ).fetchall()
    assert written == [
        ("inputs_changed", 0.5, None, None),
        ("inputs_compared", 0.01, None, "Flow Duration"),
        ("model_decayed", None, 7, None),
    ]
    assert counters["rows_written"] == 3


def test_files_have_units_and_definitions(tmp_path):
    run(GIVEN, WriteDrift(tmp_path, rows.SCHEMA))
    (path,) = tmp_path.glob("*.parquet")
    assert all(field.metadata[b"doc"] for field in pq.read_schema(path))
    assert pq.read_schema(path).field("window_end_ns").metadata[b"unit"] == b"ns"


def test_every_event_is_described():
    """A kind of row that is added is missing here until it has a sentence."""
    named = {value for name, value in vars(rows).items() if name.isupper() and isinstance(value, str)}
    assert named == set(rows.EVENTS)
    assert all(name in rows.SCHEMA.field("event").metadata[b"doc"].decode() for name in named)
    assert isinstance(rows.SCHEMA, pa.Schema)


def test_the_folder_is_checked_when_the_pipeline_is_built(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        WriteDrift(tmp_path / "file", rows.SCHEMA)
