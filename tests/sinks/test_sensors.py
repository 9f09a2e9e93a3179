import duckdb
import pyarrow.parquet as pq
import pytest
from sink_testing import run

from sinks import journals, sensors
from sinks.hourly import HourlyCount
from sinks.sensors import SensorFiles, WriteSensorEvents
from transforms import records
from transforms.records import NO_TIME, InputError, SensorEvent, SensorHealth

GIVEN = [
    SensorEvent("tap", 7, 0, records.EVENT_STARTED, NO_TIME),
    SensorEvent("tap", 7, 1, records.EVENT_DROPPING, 1000, 2000, 3, 41, SensorHealth(12.5, 2**33, 4, 5, 6)),
    SensorEvent("core", 8, 0, records.EVENT_STALE, 1000, 2000, 3, 11_000_000_000, SensorHealth(clock_error_ns=9)),
]

ROWS = [
    ("tap", 7, 0, "started", None, None, 0, 0, None, None, None, None, None, None),
    ("tap", 7, 1, "dropping", 1000, 2000, 3, 41, 12.5, 2**33, 4, 5, 6, None),
    ("core", 8, 0, "stale", 1000, 2000, 3, 11_000_000_000, 0.0, 0, 0, 0, 0, 9),
]


@pytest.mark.parametrize("streaming", [False, True], ids=["bounded", "streaming"])
def test_events_are_rows_with_what_the_sensor_said_of_itself(streaming, tmp_path):
    """What is not known is null."""
    folder = tmp_path / "sensors"
    counters = run(GIVEN, WriteSensorEvents(folder, f"events-{streaming}", streaming))
    journals.end(f"events-{streaming}")
    columns = ", ".join(SensorFiles.schema.names)
    rows = duckdb.sql(
        f"SELECT {columns} FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = false)"
    ).fetchall()
    assert sorted(rows, key=str) == sorted(ROWS, key=str)
    assert {name: counters[name] for name in ("started", "dropping", "stale", "events_written")} == {
        "started": 1,
        "dropping": 1,
        "stale": 1,
        "events_written": 3,
    }


def test_the_same_events_replace_their_file(tmp_path):
    for _ in range(2):
        run(GIVEN, WriteSensorEvents(tmp_path / "sensors"))
    assert len(list((tmp_path / "sensors").iterdir())) == 1


def test_columns_are_the_event_s_and_the_health_s():
    """A field that is added there is missing here until it is described."""
    names = [*(name for name in SensorEvent._fields if name != "health"), *SensorHealth._fields]
    assert SensorFiles.schema.names == names
    events = {value for name, value in vars(records).items() if name.startswith("EVENT_")}
    assert events == set(sensors._EVENTS)


def test_the_folder_is_checked_when_the_pipeline_is_built(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        WriteSensorEvents(tmp_path / "file")


def test_files_have_definitions(tmp_path):
    run(GIVEN, WriteSensorEvents(tmp_path))
    (path,) = tmp_path.glob("*.parquet")
    assert all(field.metadata[b"doc"] for field in pq.read_schema(path))


def test_troubles_are_told_once(tmp_path, caplog, monkeypatch):
    """In the log, of each sensor in each hour; what is no trouble is not."""
    monkeypatch.setattr(sensors, "_told", HourlyCount())
    run([GIVEN[0], GIVEN[1], GIVEN[1]], WriteSensorEvents(tmp_path / "sensors"))
    told = [record.getMessage() for record in caplog.records if record.name == sensors.__name__]
    assert told == ["sensor tap: dropping: the first of this hour"]
