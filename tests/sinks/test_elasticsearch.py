"""Flows in real Elasticsearch and OpenSearch nodes are those of the Parquet output, whatever happens on the way."""

import importlib
import json
import re
import secrets
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from proxy_testing import Proxy
from search_testing import as_flows
from servers.fixtures import need
from servers.search import ElasticsearchServer, OpenSearchServer
from sink_testing import HOUR_NS, START_NS, flow_id, flows, write

from pipelines import flows as main_job
from pipelines import generate, resend
from sinks import blocks, outputs, search_client
from sinks.outputs import SinkContext
from transforms.records import InputError

MODEL = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(params=["elasticsearch", "opensearch"])
def server(request):
    """One of the two servers; `scheme` is that of its URLs."""
    server = request.getfixturevalue(request.param)
    server.scheme = request.param
    return server


@pytest.fixture
def index():
    """A name that no other test uses."""
    return f"test-{secrets.token_hex(4)}"


def url(server, index):
    return f"{server.scheme}://{server.host}/{index}?replicas=0"


def test_a_capture_becomes_documents(server, index, tmp_path):
    """Every field of every flow, beside the Parquet output of the same job; a second run changes nothing."""
    capture = str(tmp_path / "demo.pcap")
    assert generate.main(["--output", capture, "--packets", "3000", "--quiet"]) == 0
    arguments = ["--runner=DirectRunner", "--quiet", f"--input={capture}", f"--output=parquet:{tmp_path / 'flows'}"]
    for _ in range(2):
        assert main_job.main([*arguments, f"--output={url(server, index)}"]) == 0
        table = pq.read_table(tmp_path / "flows", partitioning=None).sort_by("flow_id")
        found = server.documents(index)
        assert {document["_id"] for document in found} == {one.hex() for one in table["flow_id"].to_pylist()}
        assert as_flows(found, table.schema) == table.to_pylist()


def test_a_higher_record_replaces_a_lower_one_and_never_the_reverse(server, index):
    batches = [
        flows([1], record_number=1, fwd_packets=11),
        flows([1, 2], record_number=0, fwd_packets=10),
        flows([2], record_number=3, fwd_packets=13),
        flows([1], record_number=1, fwd_packets=99),
    ]
    counters = write(url(server, index), batches)
    packets = {document["_id"]: document["source"]["packets"] for document in server.documents(index)}
    assert packets == {flow_id(1).hex(): 11, flow_id(2).hex(): 13}
    assert counters["records_written"] == 5
    assert counters["records_refused"] == 0


def test_a_day_is_an_index(server, index):
    write(url(server, index), [flows([0, 11 * 3600 - 1, 11 * 3600])])
    found = {document["_id"]: document["_index"] for document in server.documents(index)}
    assert found == {
        flow_id(0).hex(): f"{index}-2026.11.21",
        flow_id(11 * 3600 - 1).hex(): f"{index}-2026.11.21",
        flow_id(11 * 3600).hex(): f"{index}-2026.11.22",
    }
    assert START_NS % HOUR_NS == 0


def test_what_a_document_holds_may_be_refused(server, index, tmp_path):
    """The reject bears the server's reason and the document; all others are there."""
    batch = flows([1, 2, 3], flow_start_ns=[START_NS, -1, START_NS], src_ip=["10.0.0.1", "10.0.0.1", "nonsense"])
    counters, refused = run_for_rejects(batch, url(server, index))
    assert [document["_id"] for document in server.documents(index)] == [flow_id(1).hex()]
    assert counters["records_written"] == 1
    assert counters["records_refused"] == 2
    assert {reject.step for reject in refused} == {server.scheme}
    reasons = {json.loads(reject.payload)["event"]["id"]: reject.reason for reject in refused}
    assert re.search(r"failed to parse field \[(source|related)\.ip\] of type \[ip\]$", reasons[flow_id(3).hex()])
    assert "failed to parse field [@timestamp] of type [date_nanos]" in reasons[flow_id(2).hex()]
    assert not any(flow_id(number).hex() in reason for number in (2, 3) for reason in reasons.values())


def run_for_rejects(batch, output):
    ((_, sink),) = outputs.open_outputs([output], SinkContext(("cic@1",), batch.schema, "test"))
    step = blocks._WriteBlocks(sink)
    step.setup()
    step.start_bundle()
    refused = [*step.process(batch), *(one.value for one in step.finish_bundle())]
    step.teardown()
    return {"records_written": len(batch) - len(refused), "records_refused": len(refused)}, refused


def test_fields_are_added_for_other_feature_sets(server, index):
    """Indices that are there gain them, and keep what they have."""
    write(url(server, index), [flows([1])])
    write(url(server, index), [flows([2], feature_sets=["flowbeam@1"], splt_ip_octets=[[40, 1500]])], ["flowbeam@1"])
    write(url(server, index), [flows([3])])
    found = server.documents(index)
    assert len(found) == 3
    assert [document["flow"]["splt_ip_octets"] for document in found if "splt_ip_octets" in document["flow"]] == [
        [40, 1500]
    ]


def test_a_template_of_somebody_else_is_told(server, index):
    server.ask("PUT", f"/_index_template/{index}", {"index_patterns": [f"{index}-*"], "priority": 1})
    with pytest.raises(InputError, match=f"has an index template {index} that is not flowbeam's; choose another"):
        write(url(server, index), [flows([1])])


def test_a_template_that_outranks_ours_is_told(server, index):
    server.ask("PUT", f"/_index_template/all-{index}", {"index_patterns": [f"{index}*"], "priority": 5000})
    with pytest.raises(InputError, match=f"get the mapping of the template all-{index}, not flowbeam's"):
        write(url(server, index), [flows([1])])
    server.ask("DELETE", f"/_index_template/all-{index}")


def test_a_field_of_another_type_is_told(server, index):
    write(url(server, index), [flows([1])])
    template = server.ask("GET", f"/_index_template/{index}")["index_templates"][0]["index_template"]
    template["template"]["mappings"]["properties"]["source"]["properties"]["port"] = {"type": "keyword"}
    server.ask("PUT", f"/_index_template/{index}", template)
    with pytest.raises(InputError, match=r"source\.port is keyword in the indices there, not long; choose another"):
        write(url(server, index), [flows([1])])


def test_a_check_makes_nothing(server, index):
    """It says what a run would make, and what is wrong as a run would; then nothing is left to be made."""
    context = SinkContext(("cic@1",), flows([1]).schema, "test", only_check=True)
    ((_, sink),) = outputs.open_outputs([url(server, index)], context)
    assert sink.makes == (f"index template {index}",)
    with pytest.raises(RuntimeError, match="404"):
        server.ask("GET", f"/_index_template/{index}")
    server.ask("PUT", f"/_index_template/all-{index}", {"index_patterns": [f"{index}*"], "priority": 5000})
    with pytest.raises(InputError, match=f"get the mapping of the template all-{index}, not flowbeam's"):
        outputs.open_outputs([url(server, index)], context)
    server.ask("DELETE", f"/_index_template/all-{index}")
    with pytest.raises(InputError, match="no lifecycle management"):
        outputs.open_outputs([f"{url(server, index)}&keep_days=3"], context)
    write(url(server, index), [flows([1])])
    ((_, sink),) = outputs.open_outputs([url(server, index)], context)
    assert sink.makes == ()


def test_a_template_left_to_somebody_else_must_be_there(server, index):
    """With `setup=no`; what the job lacks in it is told at the start, and nothing is made."""
    output = f"{url(server, index)}&setup=no"
    with pytest.raises(InputError, match=f"no index template {index}; let someone run `python -m sinks"):
        write(output, [flows([1])])
    write(url(server, index), [flows([1])])
    assert write(output, [flows([2])])["records_written"] == 1
    with pytest.raises(InputError, match=f"fields are missing in the index template {index}"):
        write(output, [flows([3], feature_sets=["flowbeam@1"])], ["flowbeam@1"])


def test_what_is_noticed_about_a_model_is_there(server, index, tmp_path, capsys):
    """Beside the flows, the rows of the folder; of endless input events of sensors go there, too."""
    capture = str(tmp_path / "demo.pcap")
    assert generate.main(["--output", capture, "--packets", "3000", "--quiet"]) == 0
    job = ["--quiet", f"--input={capture}", f"--output={url(server, index)}", f"--model={MODEL}", "--drift_min_flows=1"]
    assert main_job.main([*job, f"--drift={tmp_path / 'drift'}"]) == 0
    rows = pq.read_table(tmp_path / "drift").to_pylist()
    server.ask("POST", f"/{index}.drift-*/_refresh")
    hits = server.ask("POST", f"/{index}.drift-*/_search", {"size": 100})["hits"]["hits"]
    found = [(hit["_source"]["event"]["action"], hit["_source"]["drift"].get("psi")) for hit in hits]
    assert sorted(found) == sorted((row["event"], row["psi"]) for row in rows) != []
    spool = f"spool:{tmp_path / 'spool'}"
    endless = ["--runner=PrismRunner", "--streaming", f"--input={spool}", f"--output={url(server, index)}"]
    (tmp_path / "spool").mkdir()
    assert main_job.main([*endless, "--show_steps"]) == 0
    assert f"Write sensors to {server.scheme}://{server.host}/{index}" in capsys.readouterr().out


def test_setup_is_a_command(server, index, capsys):
    module = importlib.import_module(f"sinks.{server.scheme}")
    for said in ("is made", "is up to date"):
        assert module.main(server.scheme, ["--setup", url(server, index)]) == 0
        assert f"the index template {index} {said}, " in capsys.readouterr().out
    assert module.main(server.scheme, ["--setup", f"{server.scheme}://127.0.0.1:1/x"]) == 2
    assert "connection refused" in capsys.readouterr().err


def test_a_server_without_lifecycle_management_is_told(server, index):
    with pytest.raises(InputError, match=r"keep_days: this server has no lifecycle management: .*; leave it out"):
        write(f"{url(server, index)}&keep_days=30", [flows([1])])


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("elasticsearch://127.0.0.1:1/x", "connection refused; start the server, or correct the address"),
        ("opensearch://127.0.0.1:1/x", "connection refused; start the server, or correct the address"),
        ("elasticsearch://u:p@h/x", "must not carry a password; set FLOWBEAM_ELASTICSEARCH_API_KEY"),
        ("elasticsearch://h/X", "'X' is no name of an index"),
        ("elasticsearch://h", "names no server and index; write elasticsearch://HOST:9200/INDEX"),
        ("elasticsearch:h/x", "names no server and index"),
        ("elasticsearch://h:port/x", "'h:port' is no HOST:PORT"),
        ("elasticsearch://h/x?ca=a", "ca is for encrypted connections; write elasticsearch+https://h/x"),
        ("elasticsearch+https://h/x?ca=missing", "ca=missing is no file that can be read"),
        ("elasticsearch://h/x?replicas=-1", "replicas=-1; give a whole number, 0 or more"),
        ("elasticsearch://h/x?shards=0", "shards=0; give a whole number, 1 or more"),
        ("elasticsearch://h/x?setup=maybe", "setup=maybe; it is yes or no"),
        ("elasticsearch://h/x?speed=9", "unknown parameter 'speed'; known: ca, replicas"),
        ("elasticsearch+http://h/x", "unknown scheme 'elasticsearch+http'"),
    ],
)
def test_a_wrong_setting_is_one_line(output, told):
    with pytest.raises(InputError) as error:
        write(output, [flows([1])])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", ["refuse", "reset", "429", "503", "stall"])
def test_a_network_that_fails_loses_and_doubles_nothing(server, index, fault, monkeypatch):
    """The third and fourth request do not get through."""
    if fault == "stall":
        monkeypatch.setattr(search_client, "REQUEST_S", 4.0)
    with Proxy(server.port("http")) as proxy:
        output = f"{server.scheme}://127.0.0.1:{proxy.port}/{index}?replicas=0"
        ((_, sink),) = outputs.open_outputs([output], SinkContext(("cic@1",), flows([1]).schema, "test"))
        sender = sink.sender()
        tries = []
        for number in range(4):
            proxy.fault, proxy.faults_left = (fault, 2) if number == 2 else ("", 0)
            sent = sender.send(flows(range(number * 100, number * 100 + 100)))
            tries.append(sent.tries)
            assert sent.written == 100
        sender.close()
    assert tries == [1, 1, 3, 1] or (fault == "stall" and tries[2] >= 3)  # a busy node, too, may take its time
    assert server.count(index) == 400


@pytest.mark.parametrize(
    ("given", "header"),
    [({"API_KEY": "bWU6a2V5"}, "ApiKey bWU6a2V5"), ({"USER": "me", "PASSWORD": "p:ß"}, "Basic bWU6cDrDnw==")],
    ids=["key", "password"],
)
def test_credentials_are_those_of_the_environment_until_they_are_revoked(server, index, monkeypatch, given, header):
    """A gate before the node asks for them; revoked in a job, they end it with one line after a while."""
    for name, value in given.items():
        monkeypatch.setenv(f"FLOWBEAM_{server.scheme.upper()}_{name}", value)
    with Proxy(server.port("http")) as gate:
        gate.authorization = header
        output = f"{server.scheme}://127.0.0.1:{gate.port}/{index}?replicas=0"
        context = SinkContext(("cic@1",), flows([1]).schema, "test", retry_s=0.3)
        ((_, sink),) = outputs.open_outputs([output], context)
        sender = sink.sender()
        assert sender.send(flows(range(100))).written == 100
        gate.authorization = "another"
        with pytest.raises(
            InputError, match=r"gave up after .*: status 401: credentials are wrong; start again"
        ) as error:
            sender.send(flows(range(100, 200)))
        assert "\n" not in str(error.value)
        sender.close()
        with pytest.raises(InputError, match="refuses the credentials: credentials are wrong; set FLOWBEAM_"):
            outputs.open_outputs([output], context)
    assert server.count(index) == 100


def test_what_a_dead_server_missed_is_sent_again(server, index, tmp_path, capsys):
    """The job goes on and says so at its end; its other output has everything."""
    capture = str(tmp_path / "demo.pcap")
    assert generate.main(["--output", capture, "--packets", "2000", "--quiet"]) == 0
    aside = tmp_path / "unsent"
    with Proxy(server.port("http")) as proxy:
        output = f"{server.scheme}://127.0.0.1:{proxy.port}/{index}?replicas=0"
        proxy.fault, proxy.faults_left = "refuse", -1
        job = ["--runner=DirectRunner", "--quiet", f"--input={capture}", "--features=cic@1", "--sink_retry_s=0.2"]
        outputs_of_job = [f"--output=parquet:{tmp_path / 'flows'}", f"--output={output}"]
        assert main_job.main([*job, *outputs_of_job, "--on_sink_failure=continue"]) == 2
        table = pq.read_table(tmp_path / "flows", partitioning=None).sort_by("flow_id")
        *_, line = capsys.readouterr().err.splitlines()
        assert f"{len(table):,} records that a server did not take are in {aside}" in line
        assert resend.main([str(aside), "--retry_s=0.2"]) == 2
        assert list(aside.iterdir())
        proxy.fault = ""
        assert resend.main([str(aside)]) == 0
    assert f"{len(table):,} records sent, 0 refused" in capsys.readouterr().out
    assert list(aside.iterdir()) == []
    assert as_flows(server.documents(index), table.schema) == table.to_pylist()


def test_a_server_that_does_not_encrypt_is_one_line(server, index):
    """A certificate authority would not help."""
    told = rf"the server does not encrypt there; write {server.scheme}://, or the port where it does; start the server"
    with pytest.raises(InputError, match=told):
        write(f"{server.scheme}+https://{server.host}/{index}", [flows([1])])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ElasticsearchServer, OpenSearchServer])
def test_a_node_killed_and_started_again_has_every_record(kind, index, tmp_path):
    need({ElasticsearchServer: "elasticsearch", OpenSearchServer: "opensearch"}[kind])
    with kind(tmp_path / "node") as server:
        server.scheme = "elasticsearch" if kind is ElasticsearchServer else "opensearch"
        context = SinkContext(("cic@1",), flows([1]).schema, "test", retry_s=300)
        ((_, sink),) = outputs.open_outputs([url(server, index)], context)
        sender = sink.sender()
        sender.send(flows(range(100)))
        server.kill()
        restart = threading.Thread(target=server.start)
        restart.start()
        assert sender.send(flows(range(50, 250))).tries > 1
        restart.join()
        sender.close()
        assert server.count(index) == 250


@pytest.mark.slow
def test_credentials_and_certificates(index, tmp_path, monkeypatch):
    """What is wrong with them is one line, keys too; who may only write needs `setup=no`."""
    need("elasticsearch")
    with ElasticsearchServer(tmp_path / "node", users={"superuser": "right-one", "flow_writer": "writes"}) as server:
        output = f"elasticsearch+https://{server.host}/{index}?replicas=0"
        trusted = f"{output}&ca={server.authority}"
        variables = "FLOWBEAM_ELASTICSEARCH_"

        def told(output):
            with pytest.raises(InputError) as error:
                write(output, [flows([1])])
            return str(error.value)

        assert "no trusted connection: " in told(output)
        assert f"name its certificate authority: 'elasticsearch+https://{server.host}/{index}?ca=FILE'" in told(output)
        assert f"set {variables}API_KEY, or {variables}USER and {variables}PASSWORD" in told(trusted)
        monkeypatch.setenv(f"{variables}USER", "superuser")
        monkeypatch.setenv(f"{variables}PASSWORD", "wrong-one")
        assert "the server refuses the credentials: " in told(trusted)
        (tmp_path / "password").write_text("right-one\n")
        monkeypatch.setenv(f"{variables}PASSWORD_FILE", str(tmp_path / "password"))
        write(trusted, [flows([1])])
        monkeypatch.delenv(f"{variables}PASSWORD_FILE")
        monkeypatch.setenv(f"{variables}USER", "flow_writer")
        monkeypatch.setenv(f"{variables}PASSWORD", "writes")
        assert "not allowed to manage index templates: " in told(trusted)
        assert "then add setup=no to the URL" in told(trusted)
        write(f"{trusted}&setup=no", [flows([2])])
        monkeypatch.delenv(f"{variables}USER")
        monkeypatch.setenv(f"{variables}API_KEY", "bm9ib2R5OnMta2V5")  # this distribution cannot make one
        assert "the server refuses the credentials: " in told(trusted)
        assert server.count(index) == 2
