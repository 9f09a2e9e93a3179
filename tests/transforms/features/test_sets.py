"""Published sets: their names and order, what each column is made of, and the values of a flow worked out by hand."""

import csv
import gzip
import os
from pathlib import Path

import flow_testing
import pyarrow as pa
import pytest

from transforms import fields, records
from transforms.features import sets
from transforms.features.families import FAMILIES
from transforms.records import InputError

CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS", Path(__file__).parents[4] / "shared" / "data"))

CIC_HEADER = (
    "Flow ID,Src IP,Src Port,Dst IP,Dst Port,Protocol,Timestamp,Flow Duration,Total Fwd Packet,Total Bwd packets,"
    "Total Length of Fwd Packet,Total Length of Bwd Packet,Fwd Packet Length Max,Fwd Packet Length Min,"
    "Fwd Packet Length Mean,Fwd Packet Length Std,Bwd Packet Length Max,Bwd Packet Length Min,Bwd Packet Length Mean,"
    "Bwd Packet Length Std,Flow Bytes/s,Flow Packets/s,Flow IAT Mean,Flow IAT Std,Flow IAT Max,Flow IAT Min,"
    "Fwd IAT Total,Fwd IAT Mean,Fwd IAT Std,Fwd IAT Max,Fwd IAT Min,Bwd IAT Total,Bwd IAT Mean,Bwd IAT Std,Bwd IAT Max,"
    "Bwd IAT Min,Fwd PSH Flags,Bwd PSH Flags,Fwd URG Flags,Bwd URG Flags,Fwd Header Length,Bwd Header Length,"
    "Fwd Packets/s,Bwd Packets/s,Packet Length Min,Packet Length Max,Packet Length Mean,Packet Length Std,"
    "Packet Length Variance,FIN Flag Count,SYN Flag Count,RST Flag Count,PSH Flag Count,ACK Flag Count,URG Flag Count,"
    "CWR Flag Count,ECE Flag Count,Down/UpRatio,Average Packet Size,Fwd Segment Size Avg,Bwd Segment Size Avg,"
    "Fwd Bytes/Bulk Avg,Fwd Packet/Bulk Avg,Fwd Bulk Rate Avg,Bwd Bytes/Bulk Avg,Bwd Packet/Bulk Avg,Bwd Bulk Rate Avg,"
    "Subflow Fwd Packets,Subflow Fwd Bytes,Subflow Bwd Packets,Subflow Bwd Bytes,FWD Init Win Bytes,Bwd Init Win Bytes,"
    "Fwd Act Data Pkts,Fwd Seg Size Min,Active Mean,Active Std,Active Max,Active Min,Idle Mean,Idle Std,Idle Max,"
    "Idle Min,Label"
)
FLOWTBAG_HEADER = (
    "srcip,srcport,dstip,dstport,proto,total_fpackets,total_fvolume,total_bpackets,total_bvolume,min_fpktl,mean_fpktl,"
    "max_fpktl,std_fpktl,min_bpktl,mean_bpktl,max_bpktl,std_bpktl,min_fiat,mean_fiat,max_fiat,std_fiat,min_biat,"
    "mean_biat,max_biat,std_biat,duration,min_active,mean_active,max_active,std_active,min_idle,mean_idle,max_idle,"
    "std_idle,sflow_fpackets,sflow_fbytes,sflow_bpackets,sflow_bbytes,fpsh_cnt,bpsh_cnt,furg_cnt,burg_cnt,total_fhlen,"
    "total_bhlen,dscp"
)
NFSTREAM_CORE = (
    "src_ip,src_mac,src_oui,src_port,dst_ip,dst_mac,dst_oui,dst_port,protocol,ip_version,vlan_id,tunnel_id,"
    "bidirectional_first_seen_ms,bidirectional_last_seen_ms,bidirectional_duration_ms,bidirectional_packets,"
    "bidirectional_bytes,src2dst_first_seen_ms,src2dst_last_seen_ms,src2dst_duration_ms,src2dst_packets,src2dst_bytes,"
    "dst2src_first_seen_ms,dst2src_last_seen_ms,dst2src_duration_ms,dst2src_packets,dst2src_bytes"
)
SPLT = "splt_direction,splt_ps,splt_piat_ms"

DAY_NS = 1_499_071_000_123_456_789  # 2017-07-03 08:36:40.123456789 UTC
IDENTITY = {
    "src_ip": "192.168.10.5",
    "dst_ip": "2001:db8::1",
    "src_port": 54865,
    "dst_port": 443,
    "protocol": 6,
    "flow_start_ns": DAY_NS,
}


def flows(*rows):
    """Flow records with every column of ours; what a row does not give is null."""
    schema = fields.arrow_schema(sets.CANONICAL.values())
    return pa.RecordBatch.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema)


def published(name, *rows):
    return sets.get(name).published(flows(*rows)).to_pylist()


@pytest.mark.parametrize(
    ("name", "header", "columns"),
    [("cic@1", CIC_HEADER, 84), ("flowtbag@1", FLOWTBAG_HEADER, 45)],
)
def test_a_set_has_the_published_names_in_their_order(name, header, columns):
    (row,) = published(name, IDENTITY)
    assert list(row) == header.split(",")
    assert len(row) == columns


def test_nfstream_is_its_core_its_statistics_and_splt():
    names = [column.name for column in sets.get("nfstream@1").columns]
    numbers, flags = ("min", "mean", "stddev", "max"), ("syn", "cwr", "ece", "urg", "ack", "psh", "rst", "fin")
    statistics = [
        f"{side}_{name}_{of}"
        for names_of, of in ((numbers, "ps"), (numbers, "piat_ms"), (flags, "packets"))
        for side in ("bidirectional", "src2dst", "dst2src")
        for name in names_of
    ]
    assert len(statistics) == 48
    assert names == NFSTREAM_CORE.split(",") + statistics + SPLT.split(",")


@pytest.mark.corpus
def test_nfstream_has_every_column_that_nfstream_6_6_wrote():
    with gzip.open(CORPUS / "expected" / "peer-runs" / "nfstream-6.6.0_flows.csv.gz", "rt") as table:
        written = next(csv.reader(table))
    ours = [column.name for column in sets.get("nfstream@1").columns]
    assert [name for name in written if name not in ours] == ["capture"]
    statistics = [name for name in written if name.startswith(("bidirectional", "src2dst", "dst2src"))]
    assert statistics == [name for name in ours if name in statistics]


@pytest.mark.parametrize("name", sets.SETS)
def test_every_column_is_made_of_columns_that_exist(name):
    """A renamed canonical column breaks here, not in a worker."""
    feature_set = sets.get(name)
    assert set(feature_set.canonical) <= set(sets.CANONICAL)
    assert not set(feature_set.canonical) & {field.name for field in fields.COMMON}
    assert len({column.name for column in feature_set.columns}) == len(feature_set.columns)


def test_no_two_families_have_a_column_of_one_name():
    names = [field.name for family in FAMILIES for field in family.FIELDS] + [field.name for field in fields.COMMON]
    assert len(names) == len(set(names)) == len(sets.CANONICAL)


def test_flowbeam_has_more_than_150_features_and_publishes_flows_as_they_are():
    flowbeam = sets.get("flowbeam@1")
    assert len(flowbeam.features) > 150
    batch = flows(IDENTITY)
    assert flowbeam.published(batch) is batch
    assert [column.name for column in flowbeam.columns] == batch.schema.names


@pytest.mark.parametrize("name", sets.SETS)
def test_no_feature_names_a_flow_its_place_or_its_time(name):
    """What a model must not learn from (L2): identifiers, addresses, ports and absolute times."""
    leaks = {field.name for field in sets.CANONICAL.values() if field.unit == "ns"}
    leaks |= {"flow_id", "src_ip", "dst_ip", "src_port", "dst_port", "src_mac", "dst_mac", "sensor", "community_id"}
    durations = {column.name for column in sets.get(name).columns if column.name.endswith("duration_ms")}
    used = {
        source
        for column in sets.get(name).columns
        if column.kind == "feature" and column.name not in durations
        for source in column.canonical
    }
    assert not used & leaks


@pytest.mark.parametrize(("name", "said"), [
    ("cic", "did you mean cic@1?"),
    ("CIC@2", "did you mean cic@1?"),
    ("zeek@1", "known are flowbeam@1, cic@1, flowtbag@1, nfstream@1"),
])  # fmt: skip
def test_an_unknown_set_is_refused_with_what_there_is(name, said):
    with pytest.raises(InputError) as error:
        sets.get(name)
    assert repr(name) in str(error.value)
    assert said in str(error.value)


def test_flows_without_the_features_of_a_set_are_refused_by_name():
    batch = flows(IDENTITY).drop_columns(["flow_iat_mean_us"])
    with pytest.raises(InputError, match="cic@1 needs columns that these flows lack: flow_iat_mean_us;"):
        sets.get("cic@1").published(batch)


def test_only_the_families_of_the_chosen_sets_are_folded():
    def short(*names):
        chosen = [sets.get(name) for name in names]
        return [family.__name__.rpartition(".")[2] for family in sets.families_for(chosen)]

    assert short() == []
    assert short("nfstream@1") == ["counters", "lengths", "interarrival", "flags", "first_packets"]
    assert short("nfstream@1", "flowtbag@1") == short("flowtbag@1", "nfstream@1")
    assert len(short("flowbeam@1")) == len(FAMILIES)


def test_features_of_several_sets_come_once_in_the_families_order():
    one, other = sets.get("cic@1"), sets.get("flowtbag@1")
    together = sets.features_for([one, other])
    assert together == sets.features_for([other, one])
    assert set(together) == set(one.canonical) | set(other.canonical)
    assert len(together) == len(set(together))


@pytest.mark.parametrize("name", ["cic@1", "flowtbag@1", "nfstream@1"])
def test_the_schema_does_not_depend_on_the_rows(name):
    feature_set = sets.get(name)
    full = flows({name: 1 for name in feature_set.canonical if sets.CANONICAL[name].type in (pa.int64(), pa.float64())})
    for batch in (flows(), flows(IDENTITY), full, full.slice(1)):
        assert feature_set.published(batch).schema == feature_set.schema
    assert feature_set.schema.metadata == {b"features": name.encode()}


@pytest.mark.parametrize("name", ["cic@1", "flowtbag@1"])
def test_a_set_of_numbers_has_0_where_a_flow_has_no_value(name):
    """Each promises a number (D17): null would be a hole in the table, Infinity a lie."""
    (row,) = published(name, IDENTITY)
    kinds = {column.name: column.kind for column in sets.get(name).columns}
    assert {value for column, value in row.items() if kinds[column] == "feature"} == {0}


@pytest.mark.parametrize(("name", "made_of"), [
    ("cic@1", {
        "Total Length of Bwd Packet": "rev_payload_octets",
        "Fwd Packet Length Std": "fwd_payload_octets_std",
        "Flow Bytes/s": "flow_payload_octets_per_s",
        "Bwd IAT Total": "rev_iat_total_us",
        "Fwd URG Flags": "fwd_urg_count",
        "Bwd Header Length": "rev_header_octets",
        "Packet Length Variance": "flow_payload_octets_variance",
        "CWR Flag Count": "flow_cwr_count",
        "Down/UpRatio": "down_up_ratio",
        "Average Packet Size": "flow_payload_octets_mean",
        "Bwd Segment Size Avg": "rev_payload_octets_mean",
        "Bwd Packet/Bulk Avg": "rev_bulk_packets_mean",
        "Fwd Bulk Rate Avg": "fwd_bulk_octets_per_s",
        "Subflow Bwd Bytes": "rev_subflow_payload_octets",
        "FWD Init Win Bytes": "fwd_tcp_window_first",
        "Fwd Act Data Pkts": "fwd_payload_packets",
        "Fwd Seg Size Min": "fwd_header_octets_min",
        "Active Max": "active_max_us",
        "Idle Std": "idle_std_us",
    }),
    ("flowtbag@1", {
        "total_bvolume": "rev_ip_octets",
        "mean_fpktl": "fwd_ip_octets_mean",
        "std_biat": "rev_iat_std_us",
        "max_active": "active_1s_max_us",
        "min_idle": "idle_1s_min_us",
        "sflow_bbytes": "rev_subflow_ip_octets",
        "furg_cnt": "fwd_urg_count",
        "dscp": "dscp",
    }),
    ("nfstream@1", {
        "src2dst_bytes": "fwd_frame_octets",
        "bidirectional_stddev_ps": "flow_frame_octets_std",
        "dst2src_ece_packets": "rev_ece_count",
    }),
])  # fmt: skip
def test_columns_come_from_what_their_definition_says(name, made_of):
    """Each source has a number of its own, so that no two can be mistaken for each other."""
    numbers = {source: 7 + i for i, source in enumerate(made_of.values())}
    (row,) = published(name, IDENTITY | numbers)
    assert {column: row[column] for column in made_of} == {column: numbers[made_of[column]] for column in made_of}


def test_cic_names_a_flow_by_its_key_and_its_time_in_utc():
    """D30: no local time, no 12-hour clock, no resolution of a second; and a time before 1970 is cut downwards too."""
    rows = published("cic@1", IDENTITY, IDENTITY | {"flow_start_ns": -1})
    assert [row["Flow ID"] for row in rows] == ["192.168.10.5-2001:db8::1-54865-443-6"] * 2
    assert [row["Timestamp"] for row in rows] == ["2017-07-03 08:36:40.123456", "1969-12-31 23:59:59.999999"]


def test_a_label_is_kept_and_empty_without_one():
    batch = flows(IDENTITY, IDENTITY)
    labelled = batch.append_column("label", pa.array(["BENIGN", None]))
    cic = sets.get("cic@1")
    assert cic.published(batch).column("Label").to_pylist() == ["", ""]
    assert cic.published(labelled).column("Label").to_pylist() == ["BENIGN", ""]


def test_flowtbag_adds_both_headers():
    sent = {"fwd_ip_header_octets": 40, "fwd_header_octets": 52, "rev_ip_header_octets": 20}
    (row,) = published("flowtbag@1", IDENTITY | sent)
    assert (row["total_fhlen"], row["total_bhlen"]) == (92, 20)


def test_nfstream_cuts_times_to_milliseconds_but_not_gaps():
    """Durations are those of the cut times, as NFStream's; a side that sent nothing has 0 throughout."""
    times = {
        "flow_start_ns": 1_000_999_999,
        "flow_end_ns": 1_002_000_000,
        "fwd_start_ns": 1_000_999_999,
        "fwd_end_ns": 1_002_000_000,
        "flow_iat_mean_us": 1000.001,
    }
    (row,) = published("nfstream@1", IDENTITY | times | {"fwd_packets": 2, "rev_packets": 0})
    for side in ("bidirectional", "src2dst"):
        assert [row[f"{side}_{name}_ms"] for name in ("first_seen", "last_seen", "duration")] == [1000, 1002, 2]
    assert [row[f"dst2src_{name}_ms"] for name in ("first_seen", "last_seen", "duration")] == [0, 0, 0]
    assert row["bidirectional_mean_piat_ms"] == pytest.approx(1.000001)
    assert row["bidirectional_packets"] == 2


def test_nfstream_splt_is_padded_to_20_packets_whatever_the_slice():
    whole = {"splt_direction": [1, -1, 1], "splt_frame_octets": [60, 74, 66], "splt_iat_us": [0, 1500, 20]}
    long = {"splt_direction": [-1] * 21, "splt_frame_octets": [60] * 21, "splt_iat_us": [1000] * 21}
    batch = flows(long, whole, {}, long)
    for rows in (batch.slice(1, 2), batch.slice(1)):
        made = sets.get("nfstream@1").published(rows).to_pylist()
        assert made[0]["splt_direction"] == [0, 1, 0] + [-1] * 17
        assert made[0]["splt_ps"] == [60, 74, 66] + [-1] * 17
        assert made[0]["splt_piat_ms"] == [0, 1.5, 0.02] + [-1] * 17
        assert made[1]["splt_direction"] == made[1]["splt_ps"] == made[1]["splt_piat_ms"] == [-1] * 20
    assert made[2]["splt_direction"] == [1] * 20
    assert made[2]["splt_piat_ms"] == [1] * 20


def test_nfstream_has_vendor_and_tunnel_as_ndpi_numbers_them():
    rows = published("nfstream@1", *(
        IDENTITY | {"src_mac": "00:1b:17:00:01:30", "tunnel": tunnel}
        for tunnel in (None, *records.TUNNEL_NAMES[1:])
    ))  # fmt: skip
    assert {row["src_oui"] for row in rows} == {"00:1b:17"}
    assert {row["dst_oui"] for row in rows} == {None}
    numbers = dict(zip(("", *records.TUNNEL_NAMES[1:]), (row["tunnel_id"] for row in rows), strict=True))
    assert numbers == {"": 0, "ip": None, "gre": 6, "vxlan": 5, "geneve": None, "gtp-u": 1, "erspan": 6}


def test_cic_of_a_short_connection_by_hand():
    """SYN, SYN+ACK, ACK, a request of 100 octets, an answer of 1,000, through the families: no fault of D5 to D16."""
    syn, ack, push = records.SYN, records.ACK, records.PSH | records.ACK
    packets = flow_testing.packets(
        at_s=[0, 0.01, 0.02, 0.03, 0.05],
        payload=[0, 0, 0, 100, 1000],
        forward=[True, False, True, True, False],
        flags=[syn, syn | ack, ack, push, push],
        header_octets=[40, 40, 20, 20, 20],
        tcp_window=[64240, 65160, 502, 502, 501],
    )
    counted = {"fwd_packets": 3, "rev_packets": 2, "fwd_payload_octets": 100, "rev_payload_octets": 1000}
    row = IDENTITY | counted
    for family in FAMILIES:
        row |= flow_testing.fold_family(family, packets)
    (made,) = published("cic@1", row)
    expected = {
        "Flow Duration": 50_000,
        "Total Fwd Packet": 3,
        "Total Bwd packets": 2,
        "Fwd Packet Length Max": 100,
        "Fwd Packet Length Min": 0,
        "Fwd Packet Length Mean": 100 / 3,
        "Bwd Packet Length Mean": 500,
        "Flow Bytes/s": 22_000,
        "Flow Packets/s": 100,
        "Flow IAT Mean": 12_500,
        "Flow IAT Std": 5_000,
        "Flow IAT Max": 20_000,
        "Flow IAT Min": 10_000,
        "Fwd IAT Total": 30_000,
        "Fwd IAT Mean": 15_000,
        "Bwd IAT Total": 40_000,
        "Bwd IAT Std": 0,
        "Fwd PSH Flags": 1,
        "Bwd PSH Flags": 1,
        "Fwd Header Length": 80,
        "Bwd Header Length": 60,
        "Fwd Packets/s": 60,
        "Bwd Packets/s": 40,
        "Packet Length Mean": 220,
        "Packet Length Variance": (3 * 220**2 + 120**2 + 780**2) / 4,
        "SYN Flag Count": 2,
        "ACK Flag Count": 4,
        "PSH Flag Count": 2,
        "FIN Flag Count": 0,
        "Down/UpRatio": 2 / 3,
        "Average Packet Size": 220,
        "Fwd Segment Size Avg": 100 / 3,
        "Fwd Bytes/Bulk Avg": 0,
        "Subflow Fwd Packets": 3,
        "Subflow Bwd Bytes": 1000,
        "FWD Init Win Bytes": 64240,
        "Bwd Init Win Bytes": 65160,
        "Fwd Act Data Pkts": 1,
        "Fwd Seg Size Min": 20,
        "Active Mean": 50_000,
        "Active Min": 50_000,
        "Idle Max": 0,
    }
    assert {name: made[name] for name in expected} == flow_testing.nearly(expected)
