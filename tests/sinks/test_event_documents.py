"""Events of sensors and what is noticed about a model, as documents."""

import json

import pytest
from sink_testing import START_NS

from sinks import drift, sensors, unsent
from sinks.event_documents import EventDocuments, described, documents_of
from sinks.outputs import SinkContext, SinkUrl
from transforms.drift import rows
from transforms.records import EVENT_DROPPING, EVENT_STARTED, NO_TIME, SensorEvent, SensorHealth

SCHEMA = described(sensors.SensorFiles.schema, sensors.NAME)


def lines_of(*events):
    """What the bulk API would get: action and document of each."""
    documents = documents_of(SCHEMA, "flows.sensors")
    found = []
    for event in events:
        (lines,) = documents.bulk(sensors.rows_of(event))
        found.append([json.loads(line) for line in lines.line(0).splitlines()])
    return found


def test_an_event_says_who_what_and_how_much():
    health = SensorHealth(12.5, 2**33, 4, 5, 6)
    ((action, document),) = lines_of(SensorEvent("Gerät", 7, 1, EVENT_DROPPING, START_NS + 1, START_NS, 3, 41, health))
    assert action["index"]["_index"] == "flows.sensors-2026.11.21"
    assert document["@timestamp"] == "2026-11-21T13:00:00.000000001Z"
    assert document["event"]["action"] == EVENT_DROPPING
    assert document["observer"] == {"name": "Gerät"}
    told = document["sensors"]
    assert (told["amount"], told["cpu_percent"], told["memory_octets"], told["received_ns"]) == (
        41, 12.5, 2**33, "2026-11-21T13:00:00.000000000Z",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("time_ns", "received_ns", "expected"),
    [(NO_TIME, START_NS, "2026-11-21T13"), (NO_TIME, NO_TIME, "1970-01-01T00"), (START_NS, 7, "2026-11-21T13")],
    ids=["received", "run", "observed"],
)
def test_an_event_is_put_at_a_time_that_is_known(time_ns, received_ns, expected):
    """The sensor's own, or when the queue received it, or when its run began."""
    ((action, document),) = lines_of(SensorEvent("a", 7, 0, EVENT_STARTED, time_ns, received_ns))
    assert document["@timestamp"].startswith(expected)
    assert action["index"]["_index"].endswith(expected[:10].replace("-", "."))


def test_the_same_event_has_the_same_id():
    """And another one another: a bundle that is repeated doubles nothing, and nothing replaces anything else."""
    one, other = (SensorEvent("a", START_NS, 0, EVENT_STARTED, START_NS, sequence=number) for number in (1, 2))
    ids = [action["index"]["_id"] for action, _ in lines_of(one, other, one)]
    assert ids[0] == ids[2] != ids[1]


def test_events_that_were_written_aside_are_events_still(tmp_path):
    """What sends them again makes documents of events of them."""
    context = SinkContext(("cic@1",), described(rows.SCHEMA, drift.NAME), "test")
    batch = rows.batch([{"event": rows.MODEL_DECAYED, "window_end_ns": START_NS, "wrong": 3}])
    for _ in range(2):
        unsent.write(tmp_path, SinkUrl("elasticsearch", "//h/flows.drift", {}), context, batch)
    (block,) = unsent.blocks(tmp_path)
    documents = documents_of(block.flows.schema, "flows.drift")
    assert isinstance(documents, EventDocuments)
    (lines,) = documents.bulk(block.flows)
    assert json.loads(lines.line(0).splitlines()[1])["drift"]["wrong"] == 3
