"""The four spellings of CICFlowMeter's columns, and the faults that published tables are known for."""

import csv
import gzip
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from transforms.cic_csv import SPELLINGS, read_cic_csv
from transforms.features import cic, sets
from transforms.records import InputError

CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS", Path(__file__).parents[3] / "shared" / "data"))

ROWS = (*cic.IDENTIFICATION, *cic.FEATURES)
CANONICAL = tuple(dict.fromkeys(row.canonical for row in ROWS))

# As the data sets and the tool wrote them, typed off, not derived from the code.
CSE2018 = (
    "Dst Port,Protocol,Timestamp,Flow Duration,Tot Fwd Pkts,Tot Bwd Pkts,TotLen Fwd Pkts,TotLen Bwd Pkts,"
    "Fwd Pkt Len Max,Fwd Pkt Len Min,Fwd Pkt Len Mean,Fwd Pkt Len Std,Bwd Pkt Len Max,Bwd Pkt Len Min,Bwd Pkt Len Mean,"
    "Bwd Pkt Len Std,Flow Byts/s,Flow Pkts/s,Flow IAT Mean,Flow IAT Std,Flow IAT Max,Flow IAT Min,Fwd IAT Tot,"
    "Fwd IAT Mean,Fwd IAT Std,Fwd IAT Max,Fwd IAT Min,Bwd IAT Tot,Bwd IAT Mean,Bwd IAT Std,Bwd IAT Max,Bwd IAT Min,"
    "Fwd PSH Flags,Bwd PSH Flags,Fwd URG Flags,Bwd URG Flags,Fwd Header Len,Bwd Header Len,Fwd Pkts/s,Bwd Pkts/s,"
    "Pkt Len Min,Pkt Len Max,Pkt Len Mean,Pkt Len Std,Pkt Len Var,FIN Flag Cnt,SYN Flag Cnt,RST Flag Cnt,PSH Flag Cnt,"
    "ACK Flag Cnt,URG Flag Cnt,CWE Flag Count,ECE Flag Cnt,Down/Up Ratio,Pkt Size Avg,Fwd Seg Size Avg,"
    "Bwd Seg Size Avg,Fwd Byts/b Avg,Fwd Pkts/b Avg,Fwd Blk Rate Avg,Bwd Byts/b Avg,Bwd Pkts/b Avg,Bwd Blk Rate Avg,"
    "Subflow Fwd Pkts,Subflow Fwd Byts,Subflow Bwd Pkts,Subflow Bwd Byts,Init Fwd Win Byts,Init Bwd Win Byts,"
    "Fwd Act Data Pkts,Fwd Seg Size Min,Active Mean,Active Std,Active Max,Active Min,Idle Mean,Idle Std,Idle Max,"
    "Idle Min,Label"
)
IDS2017 = (
    "Flow ID, Source IP, Source Port, Destination IP, Destination Port, Protocol, Timestamp, Flow Duration,"
    " Total Fwd Packets, Total Backward Packets,Total Length of Fwd Packets, Total Length of Bwd Packets,"
    " Fwd Packet Length Max, Fwd Packet Length Min, Fwd Packet Length Mean, Fwd Packet Length Std,"
    "Bwd Packet Length Max, Bwd Packet Length Min, Bwd Packet Length Mean, Bwd Packet Length Std,Flow Bytes/s,"
    " Flow Packets/s, Flow IAT Mean, Flow IAT Std, Flow IAT Max, Flow IAT Min,Fwd IAT Total, Fwd IAT Mean,"
    " Fwd IAT Std, Fwd IAT Max, Fwd IAT Min,Bwd IAT Total, Bwd IAT Mean, Bwd IAT Std, Bwd IAT Max, Bwd IAT Min,"
    "Fwd PSH Flags, Bwd PSH Flags, Fwd URG Flags, Bwd URG Flags, Fwd Header Length, Bwd Header Length,Fwd Packets/s,"
    " Bwd Packets/s, Min Packet Length, Max Packet Length, Packet Length Mean, Packet Length Std,"
    " Packet Length Variance,FIN Flag Count, SYN Flag Count, RST Flag Count, PSH Flag Count, ACK Flag Count,"
    " URG Flag Count, CWE Flag Count, ECE Flag Count, Down/Up Ratio, Average Packet Size, Avg Fwd Segment Size,"
    " Avg Bwd Segment Size, Fwd Header Length,Fwd Avg Bytes/Bulk, Fwd Avg Packets/Bulk, Fwd Avg Bulk Rate,"
    " Bwd Avg Bytes/Bulk, Bwd Avg Packets/Bulk,Bwd Avg Bulk Rate,Subflow Fwd Packets, Subflow Fwd Bytes,"
    " Subflow Bwd Packets, Subflow Bwd Bytes,Init_Win_bytes_forward, Init_Win_bytes_backward, act_data_pkt_fwd,"
    " min_seg_size_forward,Active Mean, Active Std, Active Max, Active Min,Idle Mean, Idle Std, Idle Max, Idle Min,"
    " Label"
)
PYTHON = (
    "src_ip,dst_ip,src_port,dst_port,protocol,timestamp,flow_duration,flow_byts_s,flow_pkts_s,fwd_pkts_s,bwd_pkts_s,"
    "tot_fwd_pkts,tot_bwd_pkts,totlen_fwd_pkts,totlen_bwd_pkts,fwd_pkt_len_max,fwd_pkt_len_min,fwd_pkt_len_mean,"
    "fwd_pkt_len_std,bwd_pkt_len_max,bwd_pkt_len_min,bwd_pkt_len_mean,bwd_pkt_len_std,pkt_len_max,pkt_len_min,"
    "pkt_len_mean,pkt_len_std,pkt_len_var,fwd_header_len,bwd_header_len,fwd_seg_size_min,fwd_act_data_pkts,"
    "flow_iat_mean,flow_iat_max,flow_iat_min,flow_iat_std,fwd_iat_tot,fwd_iat_max,fwd_iat_min,fwd_iat_mean,fwd_iat_std,"
    "bwd_iat_tot,bwd_iat_max,bwd_iat_min,bwd_iat_mean,bwd_iat_std,fwd_psh_flags,bwd_psh_flags,fwd_urg_flags,"
    "bwd_urg_flags,fin_flag_cnt,syn_flag_cnt,rst_flag_cnt,psh_flag_cnt,ack_flag_cnt,urg_flag_cnt,ece_flag_cnt,"
    "down_up_ratio,pkt_size_avg,init_fwd_win_byts,init_bwd_win_byts,active_max,active_min,active_mean,active_std,"
    "idle_max,idle_min,idle_mean,idle_std,fwd_byts_b_avg,fwd_pkts_b_avg,bwd_byts_b_avg,bwd_pkts_b_avg,"
    "fwd_blk_rate_avg,bwd_blk_rate_avg,fwd_seg_size_avg,bwd_seg_size_avg,cwr_flag_count,subflow_fwd_pkts,"
    "subflow_bwd_pkts,subflow_fwd_byts,subflow_bwd_byts"
)
OURS = ",".join(column.name for column in sets.get("cic@1").columns)
CICFLOWMETER = OURS.replace("Down/UpRatio", "Down/Up Ratio")
IOTID20 = (
    "Flow_ID,Src_IP,Src_Port,Dst_IP,Dst_Port,Timestamp,Flow_Duration,TotLen_Fwd_Pkts,Flow_Byts/s,Flow_IAT_Mean,"
    "Pkt_Size_Avg,Init_Bwd_Win_Byts,Label"
)
HEADERS = [
    pytest.param(OURS, "cic", id="ours"),
    pytest.param(CICFLOWMETER, "cic", id="CICFlowMeter"),
    pytest.param(CSE2018, "cse2018", id="CSE-CIC-IDS2018"),
    pytest.param(IDS2017, "ids2017", id="CIC-IDS2017"),
    pytest.param(PYTHON, "python", id="Python port"),
    pytest.param(IOTID20, "cse2018", id="IoTID20"),
]


@pytest.fixture
def table(tmp_path):
    """Writes a table of the lines given; its path."""

    def write(*lines, name="flows.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes("\n".join((*lines, "")).encode(encoding))
        return str(path)

    return write


def read(path, **settings):
    rows = read_cic_csv(path, **settings)
    batches = list(rows)
    return pa.Table.from_batches(batches, rows.schema).to_pylist(), rows.report


def row(header, default="0", **cells):
    """A line under `header`: `default` everywhere but where a keyword, with _ for any other character, says."""
    names = [name.strip() for name in header.split(",")]
    keys = ["".join(c if c.isalnum() else "_" for c in name) for name in names]
    assert set(cells) <= set(keys)
    return ",".join(cells.get(key, default) for key in keys)


@pytest.mark.parametrize(("header", "spelling"), HEADERS)
def test_every_spelling_gives_the_canonical_columns(table, header, spelling):
    """Each column has a number of its own; a column that repeats an earlier meaning is left to the earlier one."""
    names = [name.strip() for name in header.split(",")]
    numbers = {name: str(10 + i) for i, name in enumerate(names)}
    expected = {}
    for name in names:
        for known in ROWS:
            if name.replace("_", " ") in {getattr(known, s).replace("_", " ") for s in SPELLINGS[:3]} or (
                name == known.python and spelling == "python"
            ):
                expected.setdefault(known.canonical, int(numbers[name]))
    cells = [
        "2018-02-14 08:31:01" if name.lower() == "timestamp" else "BENIGN" if name == "Label" else numbers[name]
        for name in names
    ]
    ((made,), report) = read(table(header, ",".join(cells)))
    expected |= {"flow_start_ns": 1_518_597_061 * 10**9}
    scale = 1 if report.time_unit == "us" else 1_000_000
    expected = {name: value * (scale if name.endswith("_us") else 1) for name, value in expected.items()}
    expected |= {name: str(expected[name]) for name in ("src_ip", "dst_ip") if name in expected}
    if "Label" in names:
        expected["label"] = "BENIGN"
    assert made == expected
    assert report.spelling == spelling
    assert report.nulls == {}
    assert report.ignored == ()
    assert set(report.missing) == {*CANONICAL, "label"} - set(made)


def test_the_spellings_agree_column_by_column():
    """The two data sets list the same columns in one order, and the port's names are 2018's in snake case."""

    def meanings(header, spelling):
        table = {getattr(known, spelling): known.canonical for known in ROWS}
        return [table[name.strip()] for name in header.split(",") if name.strip() in table]

    ours = meanings(OURS, "cic")
    assert meanings(CSE2018, "cse2018") == ours[3:]
    old = meanings(IDS2017, "ids2017")
    assert old.pop(60) == "fwd_header_octets"  # said twice
    assert old == ours
    snake = {known.cse2018.lower().replace(" ", "_").replace("/", "_"): known.canonical for known in ROWS}
    snake["cwr_flag_count"] = snake.pop("cwe_flag_count")
    assert {name: snake.get(name) for name in PYTHON.split(",")} == {known.python: known.canonical for known in ROWS}


@pytest.mark.parametrize(("header", "missing"), [
    (OURS, set()),
    (CSE2018, {"src_ip", "src_port", "dst_ip"}),
    (IDS2017, set()),
    (PYTHON, {"label"}),
])  # fmt: skip
def test_a_whole_table_lacks_nothing_but_what_its_header_lacks(table, header, missing):
    _, report = read(table(header))
    assert set(report.missing) == missing
    assert report.rows == 0


def test_types_are_those_of_flow_records(table):
    """So that a model trained on a table reads flows."""
    rows = read_cic_csv(table(OURS))
    assert rows.schema.names == [*CANONICAL, "label"]
    for column in rows.schema:
        assert column.type == (pa.string() if column.name == "label" else sets.CANONICAL[column.name].type)


def test_what_a_set_writes_reads_back_as_it_was(table):
    """`cic@1` out and in again: the same numbers, 0 for what was null, and the time to the microsecond."""
    cic_set = sets.get("cic@1")
    schema = pa.schema([(field.name, field.type) for field in sets.CANONICAL.values()])
    numbers = {
        name: i + (0.5 if sets.CANONICAL[name].type == pa.float64() else 0)
        for i, name in enumerate(cic_set.features)
        if sets.CANONICAL[name].type in (pa.int64(), pa.float64())
    }
    identity = {"src_ip": "10.0.0.1", "dst_ip": "::1", "src_port": 1, "dst_port": 65535, "protocol": 17}
    flow = dict.fromkeys(schema.names) | numbers | identity | {"flow_start_ns": 1_700_000_000_000_001_999}
    published = cic_set.published(pa.RecordBatch.from_pylist([flow], schema)).to_pylist()[0]
    path = table(OURS, ",".join(str(value) for value in published.values()))
    ((made,), _) = read(path)
    expected = {name: flow[name] or 0 for name in cic_set.features} | identity | {"label": None}
    assert made == expected | {"flow_start_ns": 1_700_000_000_000_001_000}


def test_infinity_nan_and_nothing_are_null_and_counted(table):
    """CICFlowMeter writes them for zero duration (D17); nobody should learn from them."""
    lines = [row(CSE2018, Flow_Byts_s=text) for text in ("Infinity", "NaN", "-inf", "", " 7.5 ", "1e3")]
    made, report = read(table(CSE2018, *lines))
    assert [flow["flow_payload_octets_per_s"] for flow in made] == [None, None, None, None, 7.5, 1000]
    nulls = {reason: dict(columns) for reason, columns in report.nulls.items()}
    assert nulls["unreadable"] == {"flow_start_ns": 6}
    assert nulls["not_finite"] == {"flow_payload_octets_per_s": 3}
    assert nulls["empty"] == {"flow_payload_octets_per_s": 1}


def test_a_window_of_minus_1_is_absent_and_other_negatives_are_impossible(table):
    """Their overflows and out-of-order gaps (D25) become null; a window of 0 stays a value."""
    line = row(IDS2017, Init_Win_bytes_forward="-1", Flow_IAT_Min="-12", Fwd_Header_Length="-32212234632")
    ((made,), report) = read(table(IDS2017, line))
    assert made["fwd_tcp_window_first"] is made["flow_iat_min_us"] is made["fwd_header_octets"] is None
    assert made["rev_tcp_window_first"] == 0
    assert report.nulls["absent"] == {"fwd_tcp_window_first": 1}
    assert report.nulls["negative"] == {"flow_iat_min_us": 1, "fwd_header_octets": 1}


def test_mixed_types_are_read_as_what_they_say(table):
    """A count written as 3.0 is 3; half a packet, a port of 70000 and a word are unreadable."""
    lines = [row(CSE2018, Tot_Fwd_Pkts=text) for text in ("3", "3.0", "2.5", "three")]
    lines.append(row(CSE2018, Dst_Port="70000"))
    made, report = read(table(CSE2018, *lines))
    assert [flow["fwd_packets"] for flow in made] == [3, 3, None, None, 0]
    assert made[4]["dst_port"] is None
    assert report.nulls["unreadable"]["fwd_packets"] == 2
    assert report.nulls["unreadable"]["dst_port"] == 1


def test_repeated_headers_empty_and_broken_rows_are_dropped_and_counted(table):
    """CSE-CIC-IDS2018 repeats its header among the rows; a Thursday of CIC-IDS2017 ends in 288,602 empty ones."""
    good, commas = row(IDS2017), "," * IDS2017.count(",")
    path = table(IDS2017, good, IDS2017, commas, commas, good + ",1", good + ",–", good, IDS2017, encoding="cp1252")
    made, report = read(path)
    assert len(made) == report.rows == 2
    assert (report.repeated_headers, report.empty_rows, report.malformed_rows) == (2, 2, 2)


def test_the_second_fwd_header_length_is_a_duplicate(table):
    for header, name in ((IDS2017, "Fwd Header Length"), (IDS2017.replace(
        "Segment Size, Fwd Header Length", "Segment Size,Fwd Header Length.1"), "Fwd Header Length.1")):  # fmt: skip
        at = [i for i, column in enumerate(header.split(",")) if "Fwd Header Length" in column]
        cells = row(header).split(",")
        cells[at[0]], cells[at[1]] = "40", "99"
        ((made,), report) = read(table(header, ",".join(cells)))
        assert made["fwd_header_octets"] == 40
        assert name in report.duplicates


@pytest.mark.parametrize(("text", "seconds"), [
    ("2018-02-14 08:31:01", 1_518_597_061),
    ("2018-02-14T08:31:01.000001", 1_518_597_061.000_001),
    ("14/02/2018 08:31:01", 1_518_597_061),
    ("14/02/2018 08:31:01 PM", 1_518_597_061 + 12 * 3600),
    ("14/2/2018 8:31", 1_518_597_060),
    ("2018-13-01 08:31:01", None),
    ("soon", None),
    ("", None),
])  # fmt: skip
def test_times_of_every_tool_are_read(table, text, seconds):
    """Day first, and the file's clock as UTC: nothing in these tables says otherwise."""
    ((made,), report) = read(table(CSE2018, row(CSE2018, Timestamp=text)))
    assert made["flow_start_ns"] == (None if seconds is None else round(seconds * 10**6) * 1000)
    assert sum(counts["flow_start_ns"] for counts in report.nulls.values()) == (seconds is None)


def test_a_label_in_windows_1252_is_read(table):
    """CIC-IDS2017's web attacks have an en dash of that encoding."""
    lines = [row(CSE2018, Label="Web Attack – XSS"), row(CSE2018, Label=" BENIGN")]
    made, _ = read(table(CSE2018, *lines, encoding="cp1252"))
    assert [flow["label"] for flow in made] == ["Web Attack – XSS", "BENIGN"]


def test_the_label_may_have_another_name(table):
    ((made,), report) = read(table(CSE2018.replace("Label", "attack"), row(CSE2018, Label="DoS")), label="Attack")
    assert made["label"] == "DoS"
    assert report.ignored == ()


def test_columns_without_a_meaning_are_named(table):
    """CIC-DDoS2019 adds a few; a table is read without them."""
    _, report = read(table("Unnamed: 0," + CSE2018 + ",SimillarHTTP", "1," + row(CSE2018) + ",x"))
    assert report.ignored == ("Unnamed: 0", "SimillarHTTP")


@pytest.mark.parametrize(("lines", "said"), [
    (["a,b,Flow Duration", "1,2,3"], "1 of 3 fit, these do not: a, b"),
    (["duration,service,src_bytes,dst_bytes,flag,land"], "0 of 6 fit, these do not: duration, service, src_bytes, "),
    ([], "is empty, or its first line is"),
    ([CSE2018.replace(",", ";")], "0 of 1 fit"),
])  # fmt: skip
def test_a_table_of_something_else_is_refused_in_one_line(table, lines, said):
    path = table(*lines)
    with pytest.raises(InputError) as error:
        read_cic_csv(path)
    assert path in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_cic_csv(str(tmp_path / "none.csv"))


def test_blocks_bound_memory_and_do_not_change_the_rows(table):
    """Any block size gives the same rows, in order, and no batch is larger than its block."""
    lines = [row(CSE2018, Flow_Duration=str(i), Flow_Byts_s="inf" if i % 7 == 0 else "1") for i in range(1000)]
    path = table(CSE2018, *lines)
    whole, report = read(path)
    rows = read_cic_csv(path, block_octets=4096)
    batches = list(rows)
    assert len(batches) > 10
    assert max(len(batch) for batch in batches) < 100
    assert pa.Table.from_batches(batches).to_pylist() == whole
    assert rows.report == report
    assert [flow["flow_duration_us"] for flow in whole] == list(range(1000))


def test_a_compressed_table_is_read_too(table, tmp_path):
    path = table(CSE2018, row(CSE2018))
    with gzip.open(tmp_path / "flows.csv.gz", "wb") as packed:
        packed.write(Path(path).read_bytes())
    assert read(str(tmp_path / "flows.csv.gz")) == read(path)


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "label", "spelling", "rows", "columns"), [
    ("cicids2017_sample.csv", "Label", "ids2017", 8062, 74),
    ("cicids2017_0.01km.csv", "Labelb", "ids2017", 18_635, 20),
    ("iotid20_0.01.csv", "Label", "cse2018", 6252, 31),
])  # fmt: skip
def test_published_tables_are_read_whole(name, label, spelling, rows, columns):
    """Every value is what the csv module reads, or a null that the report counts."""
    path = CORPUS / "labelled" / name
    made, report = read(str(path), label=label)
    assert (report.spelling, report.rows, len(made[0])) == (spelling, rows, columns)
    assert report.ignored == ()
    nulls = sum(sum(counts.values()) for counts in report.nulls.values())
    assert sum(value is None for flow in made for value in flow.values()) == nulls
    with path.open() as table:
        durations = [
            float(line["Flow Duration" if "cicids" in name else "Flow_Duration"]) for line in csv.DictReader(table)
        ]
    assert [flow["flow_duration_us"] for flow in made] == [None if value < 0 else value for value in durations]


@pytest.mark.parametrize(("cells", "unit", "duration_us"), [
    ({"flow_duration": "0.5", "flow_pkts_s": "8", "tot_fwd_pkts": "3", "tot_bwd_pkts": "1"}, "s", 500_000),
    ({"flow_duration": "500000", "flow_pkts_s": "8", "tot_fwd_pkts": "3", "tot_bwd_pkts": "1"}, "us", 500_000),
    ({"flow_duration": "2"}, "s", 2_000_000),
    ({"tot_fwd_pkts": "1"}, "", 0),
], ids=["since-0.3", "until-0.2", "no-rate-to-tell-by", "no-duration-either"])  # fmt: skip
def test_the_python_ports_unit_is_found_by_its_rates(table, cells, unit, duration_us):
    """Version 0.2 wrote µs, 0.3 seconds, under the same names; rate times duration is the number of packets."""
    ((made,), report) = read(table(PYTHON, row(PYTHON, flow_iat_max="0.25" if unit == "s" else "0", **cells)))
    assert report.time_unit == unit
    assert made["flow_duration_us"] == duration_us
    assert made["flow_iat_max_us"] == (250_000 if unit == "s" else 0)


@pytest.mark.corpus
def test_a_table_of_the_python_port_is_read_whole(tmp_path):
    """Packets per second times the duration is the number of packets, once both are in our units."""
    packed = CORPUS / "expected" / "peer-runs" / "cicflowmeter-py-0.2.0_flows.csv.gz"
    with gzip.open(packed) as source, (tmp_path / "flows.csv").open("wb") as copy:
        shutil.copyfileobj(source, copy)
    made, report = read(str(tmp_path / "flows.csv"))
    assert (report.spelling, report.time_unit) == ("python", "us")
    assert (report.ignored, report.missing) == (("capture",), ("label",))
    long = [flow for flow in made if flow["flow_duration_us"] > 1000 and flow["flow_packets_per_s"]]
    assert len(long) > 100
    for flow in long:
        counted = flow["flow_packets_per_s"] * flow["flow_duration_us"] / 1e6
        assert counted == pytest.approx(flow["fwd_packets"] + flow["rev_packets"], rel=1e-3)
