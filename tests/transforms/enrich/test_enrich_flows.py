"""The step that enriches flows, on a runner and by itself, while its files change."""

import pickle

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from geoip_testing import place, system, write_database
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_testing import flows

from transforms import fields
from transforms.enrich import enrichment
from transforms.enrich.enrich_flows import EnrichFlows
from transforms.enrich.enrichment import Enrichment, enrichment_of
from transforms.enrich.settings import EnrichSettings
from transforms.records import InputError

ADDRESSES = ["10.1.2.3", "10.0.0.9", "1.2.3.4", "9.9.9.9", "2001:db8::7", "203.0.113.5"]


@pytest.fixture
def files(tmp_path):
    """A database of each kind, zones and a list."""
    city = [("1.2.3.0/24", place("BR", "Rio", (-22.9, -43.2))), ("2001:db8::/32", place("JP"))]
    write_database(tmp_path / "city.mmdb", "Our-City", city)
    write_database(tmp_path / "asn.mmdb", "Our-ASN", [("1.2.0.0/16", system(64500, "Example"))])
    (tmp_path / "zones.csv").write_text("network,name,role,site\n10.0.0.0/8,office,clients,Rio\n")
    (tmp_path / "bad.txt").write_text("203.0.113.0/24\nevil.example\n")
    return tmp_path


def everything(files, **more) -> EnrichSettings:
    databases = (str(files / "city.mmdb"), str(files / "asn.mmdb"))
    return EnrichSettings(databases, str(files / "zones.csv"), (str(files / "bad.txt"),), **more)


def some_flows(numbers=range(5), **columns) -> pa.RecordBatch:
    """Flow n goes from the address n to the one behind it."""
    numbers = list(numbers)
    return flows(
        numbers,
        src_ip=[ADDRESSES[n % len(ADDRESSES)] for n in numbers],
        dst_ip=[ADDRESSES[(n + 1) % len(ADDRESSES)] for n in numbers],
        protocol=[6] * len(numbers),
        src_port=[40_000] * len(numbers),
        dst_port=[443] * len(numbers),
        **columns,
    )


@pytest.fixture
def looks(monkeypatch):
    """Files are looked at before every batch."""
    monkeypatch.setattr(enrichment, "LOOK_S", -1.0)


def test_every_column_says_what_is_known(files):
    known = enrichment_of(everything(files)).append(some_flows()).to_pylist()
    assert [row["locality"] for row in known] == ["internal", "outbound", "external", "external", "external"]
    assert [row["src_zone"] for row in known] == ["office", "office", None, None, None]
    assert [row["dst_country_iso"] for row in known] == [None, "BR", None, "JP", None]
    assert [row["threat_side"] for row in known] == [None] * 4 + ["dst"]
    flow = known[1]
    assert {name: flow[name] for name in ("dst_city", "dst_region_iso", "dst_latitude", "dst_longitude")} == {
        "dst_city": "Rio", "dst_region_iso": "BR-01", "dst_latitude": -22.9, "dst_longitude": -43.2,
    }  # fmt: skip
    assert (flow["dst_asn"], flow["dst_as_org"], flow["src_asn"]) == (64500, "Example", None)
    assert (flow["src_role"], flow["src_site"], flow["service"]) == ("clients", "Rio", "https")
    assert (known[4]["threat_list"], known[4]["threat_indicator"]) == ("bad", "203.0.113.0/24")
    assert {row["enrichment_problem"] for row in known} == {None}


def test_columns_are_those_that_were_promised(files):
    """Names, types and descriptions, after the flows' own, which stay as they are."""
    step = EnrichFlows(everything(files, reverse_dns=True))
    before = some_flows()
    after = enrichment_of(step.settings).append(before)
    promised = fields.arrow_schema(step.fields)
    assert after.schema.metadata == before.schema.metadata
    assert after.select(before.schema.names).equals(before)
    assert after.schema.equals(pa.schema([*before.schema, *promised], before.schema.metadata), check_metadata=True)
    assert all(field.doc for field in step.fields)
    after.validate(full=True)


@pytest.mark.parametrize(
    ("settings", "absent", "present"),
    [
        ({"geoip": ("asn.mmdb",)}, "country_iso zone threat_list hostname locality", "src_asn dst_as_org service"),
        ({"zones": "zones.csv"}, "asn country_iso threat_list hostname", "src_zone dst_site locality"),
        ({"threats": ("bad.txt",)}, "asn country_iso zone hostname", "threat_list threat_side enrichment_problem"),
        ({"reverse_dns": True}, "asn country_iso zone threat_list", "src_hostname dst_hostname"),
    ],
    ids=["geoip", "zones", "threats", "reverse-dns"],
)
def test_what_was_not_asked_for_has_no_columns(files, monkeypatch, settings, absent, present):
    monkeypatch.chdir(files)
    names = {field.name for field in EnrichFlows(EnrichSettings(**settings)).fields}
    assert not names & {f"{side}{name}" for name in absent.split() for side in ("", "src_", "dst_")}
    assert set(present.split()) <= names


@given(st.lists(st.integers(0, 30), max_size=40), st.data())
@settings(max_examples=20)
def test_any_batching_gives_the_same_columns(tmp_path_factory, numbers, data):
    """What is known of a flow does not depend on what is beside it, nor on what came before."""
    folder = tmp_path_factory.getbasetemp() / "enrich-batching"
    if not folder.exists():
        folder.mkdir()
        files.__wrapped__(folder)
    whole = some_flows(numbers)
    at_once = Enrichment(everything(folder)).append(whole)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(numbers)), max_size=4)))
    known = Enrichment(everything(folder))
    parts = [known.append(whole[low:high]) for low, high in zip([0, *cuts], [*cuts, len(numbers)], strict=True)]
    assert pa.Table.from_batches(parts).combine_chunks().equals(pa.Table.from_batches([at_once]).combine_chunks())


def test_an_address_that_is_none_and_one_that_is_null(files):
    """Whatever a flow has for an address, it is not lost."""
    batch = flows([1, 2], src_ip=[None, "no address"], dst_ip=["1.2.3.4", None])
    known = enrichment_of(everything(files)).append(batch).to_pylist()
    assert [row["dst_city"] for row in known] == ["Rio", None]
    assert [row["src_country_iso"] for row in known] == [None, None]


def test_domains_are_looked_for_in_named_columns_and_host_names(files, monkeypatch):
    monkeypatch.setattr(enrichment.host_names.HostNames.__init__, "__defaults__", (lambda a: f"{a}.evil.example", 100))
    batch = some_flows([0, 1]).append_column("server_name", pa.array(["www.evil.example", None]))
    known = Enrichment(EnrichSettings(threats=(str(files / "bad.txt"),), threat_columns=("server_name",)))
    assert known.append(batch)["threat_indicator"].to_pylist() == ["evil.example", None]
    assert known.append(batch)["threat_side"].to_pylist() == ["dst", None]
    known = Enrichment(everything(files, reverse_dns=True, reverse_dns_wait_s=30))
    assert known.append(batch)["src_hostname"].to_pylist() == ["10.1.2.3.evil.example", "10.0.0.9.evil.example"]
    assert known.append(batch)["threat_indicator"].to_pylist() == ["evil.example"] * 2


def test_names_that_are_late_are_a_problem_of_their_flows_alone(files, monkeypatch):
    def resolve(address):
        raise OSError if address != "9.9.9.9" else AssertionError

    monkeypatch.setattr(enrichment.host_names.HostNames.__init__, "__defaults__", (resolve, 100))
    known = Enrichment(EnrichSettings(reverse_dns=True, reverse_dns_wait_s=30))
    known._names._asked.add("9.9.9.9")  # as if another batch had asked for it
    problems = known.append(some_flows())["enrichment_problem"].to_pylist()
    assert problems == [None, None, "reverse_dns_late", "reverse_dns_late", None]


@pytest.mark.usefixtures("looks")
def test_changed_files_are_taken_up_between_batches(files):
    known = Enrichment(everything(files))
    write_database(files / "city.mmdb", "Our-City", [("9.9.9.0/24", place("CL", "Arica"))])
    (files / "zones.csv").write_text("network,name\n10.0.0.0/8,moved\n")
    (files / "bad.txt").write_text("9.9.9.9\n")
    known.append(some_flows())
    after = known.append(some_flows()).to_pylist()
    assert [row["dst_city"] for row in after] == [None, None, "Arica", None, None]
    assert after[0]["src_zone"] == "moved"
    assert [row["threat_indicator"] for row in after] == [None, None, "9.9.9.9", "9.9.9.9", None]
    assert known.take_counts() == (3, 0)
    assert known.take_counts() == (0, 0)


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize(
    ("name", "problem"),
    [("city.mmdb", "geoip_outdated"), ("zones.csv", "zones_outdated"), ("bad.txt", "threats_outdated")],
)
@pytest.mark.parametrize("how", ["broken", "gone"])
def test_a_file_that_breaks_loses_no_flow(files, caplog, name, problem, how):
    """What was read before stays in use, every flow says so, and one line of the log."""
    known = Enrichment(everything(files))
    before = known.append(some_flows())
    path = files / name
    whole = path.read_bytes()
    if how == "broken":
        path.write_bytes(whole[: len(whole) // 2] + b"\nno network, no database")
    else:
        path.unlink()
    for _ in range(4):
        after = known.append(some_flows())
    assert after.drop_columns(["enrichment_problem"]).equals(before.drop_columns(["enrichment_problem"]))
    assert set(after["enrichment_problem"].to_pylist()) == {problem}
    assert [name in record.getMessage() for record in caplog.records if "watched" in record.name] == [True]
    assert known.take_counts() == (0, 1)
    path.write_bytes(whole)
    for _ in range(2):
        after = known.append(some_flows())
    assert after.equals(before)


@pytest.mark.usefixtures("looks")
def test_a_database_that_knows_less_than_before_is_refused(files):
    """Columns are fixed when the job starts."""
    known = Enrichment(everything(files))
    before = known.append(some_flows())
    write_database(files / "city.mmdb", "Our-ASN", [("1.2.0.0/16", system(64501))])
    for _ in range(3):
        after = known.append(some_flows())
    assert after["dst_city"].to_pylist() == before["dst_city"].to_pylist()
    assert set(after["enrichment_problem"].to_pylist()) == {"geoip_outdated"}


def test_the_step_on_a_runner_counts_its_flows(files):
    """It is pickled, its files opened on the worker; flows keep their order and event time."""
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    step = EnrichFlows(everything(files))
    got: list[pa.RecordBatch] = []
    enriched = pipeline | beam.Create([some_flows(), some_flows([5])], reshuffle=False) | "EnrichFlows" >> step
    (files / "seen").mkdir()
    folder = str(files / "seen")

    def keep(batch):
        with open(f"{folder}/{len(batch)}", "wb") as file:
            pickle.dump(batch, file)

    _ = enriched | beam.Map(keep)
    result = pipeline.run()
    result.wait_until_finish()
    for rows in (5, 1):
        with open(f"{folder}/{rows}", "rb") as file:
            got.append(pickle.load(file))
    assert [batch["locality"].to_pylist() for batch in got] == [
        ["internal", "outbound", "external", "external", "external"],
        ["inbound"],
    ]
    counters = {counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]}
    assert counters["flows_enriched"] == 6
    assert counters["flows_with_problems"] == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"reverse_dns": True, "reverse_dns_threads": 0}, "--reverse_dns_threads: 0; give 1 to 256"),
        ({"reverse_dns": True, "reverse_dns_wait_s": -1.0}, "--reverse_dns_wait_s: -1 s; give 0 to 60"),
        ({"geoip": ("a", "b", "a")}, "--geoip: names a twice"),
        ({"threats": ("",)}, "--threats: is empty"),
        ({"threat_columns": ("sni",)}, "--threat_columns: there are no lists to look in; give --threats, too"),
        ({"zones": "absent.csv"}, "--zones absent.csv: No such file or directory"),
        ({"geoip": ("absent.mmdb",)}, "--geoip absent.mmdb: No such file or directory"),
        ({"threats": ("absent.txt",)}, "--threats absent.txt: No such file or directory"),
    ],
)
def test_a_wrong_setting_is_told_when_the_step_is_made(settings, told):
    with pytest.raises(InputError, match=told):
        EnrichFlows(EnrichSettings(**settings))
