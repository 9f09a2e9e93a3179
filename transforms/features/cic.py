"""`cic@1`: CICFlowMeter's 84 columns, computed right, and the four ways in which published tables spell them."""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from transforms.features.columns import UNCHANGED, UTC_TEXT, ZERO, Column, Conversion


class Spelled(NamedTuple):
    """One column in every spelling.

    Attributes:
        canonical: Our name for it.
        cic: CICFlowMeter 4, and `cic@1`.
        cse2018: CSE-CIC-IDS2018 (CICFlowMeter 3.1).
        ids2017: CIC-IDS2017 (CICFlowMeter 3), less the leading spaces.
        python: The Python port, `cicflowmeter` on PyPI.
    """

    canonical: str
    cic: str
    cse2018: str
    ids2017: str
    python: str


IDENTIFICATION = (
    Spelled("src_ip", "Src IP", "Src IP", "Source IP", "src_ip"),
    Spelled("src_port", "Src Port", "Src Port", "Source Port", "src_port"),
    Spelled("dst_ip", "Dst IP", "Dst IP", "Destination IP", "dst_ip"),
    Spelled("dst_port", "Dst Port", "Dst Port", "Destination Port", "dst_port"),
    Spelled("protocol", "Protocol", "Protocol", "Protocol", "protocol"),
    Spelled("flow_start_ns", "Timestamp", "Timestamp", "Timestamp", "timestamp"),
)
"""Behind the Flow ID, which is these, less the time, in another order."""


def _lengths(side: str, cic: str, python: str) -> Iterator[Spelled]:
    for name in ("Max", "Min", "Mean", "Std"):
        long, short = f"{cic} Packet Length {name}", f"{cic} Pkt Len {name}"
        yield Spelled(f"{side}_payload_octets_{name.lower()}", long, short, long, f"{python}_pkt_len_{name.lower()}")


def _gaps(side: str, cic: str, *names: str) -> Iterator[Spelled]:
    for name in names:
        short = "Tot" if name == "Total" else name
        long = f"{cic} IAT {name}"
        python = f"{cic.lower()}_iat_{short.lower()}"
        yield Spelled(f"{side}_iat_{name.lower()}_us", long, f"{cic} IAT {short}", long, python)


def _flags() -> Iterator[Spelled]:
    for flag in ("PSH", "URG"):
        for side, cic in (("fwd", "Fwd"), ("rev", "Bwd")):
            name = f"{cic} {flag} Flags"
            yield Spelled(f"{side}_{flag.lower()}_count", name, name, name, f"{cic.lower()}_{flag.lower()}_flags")


def _flag_counts() -> Iterator[Spelled]:
    for flag in ("FIN", "SYN", "RST", "PSH", "ACK", "URG"):
        python = f"{flag.lower()}_flag_cnt"
        yield Spelled(
            f"flow_{flag.lower()}_count", f"{flag} Flag Count", f"{flag} Flag Cnt", f"{flag} Flag Count", python
        )
    yield Spelled("flow_cwr_count", "CWR Flag Count", "CWE Flag Count", "CWE Flag Count", "cwr_flag_count")
    yield Spelled("flow_ece_count", "ECE Flag Count", "ECE Flag Cnt", "ECE Flag Count", "ece_flag_cnt")


def _bulks() -> Iterator[Spelled]:
    for side, cic in (("fwd", "Fwd"), ("rev", "Bwd")):
        port = cic.lower()
        for canonical, new, short, old, python in (
            ("bulk_octets_mean", "Bytes/Bulk Avg", "Byts/b Avg", "Avg Bytes/Bulk", "byts_b_avg"),
            ("bulk_packets_mean", "Packet/Bulk Avg", "Pkts/b Avg", "Avg Packets/Bulk", "pkts_b_avg"),
            ("bulk_octets_per_s", "Bulk Rate Avg", "Blk Rate Avg", "Avg Bulk Rate", "blk_rate_avg"),
        ):
            yield Spelled(f"{side}_{canonical}", f"{cic} {new}", f"{cic} {short}", f"{cic} {old}", f"{port}_{python}")


def _subflows() -> Iterator[Spelled]:
    for side, cic in (("fwd", "Fwd"), ("rev", "Bwd")):
        for canonical, long, short in (("packets", "Packets", "Pkts"), ("payload_octets", "Bytes", "Byts")):
            name = f"Subflow {cic} {long}"
            python = f"subflow_{cic.lower()}_{short.lower()}"
            yield Spelled(f"{side}_subflow_{canonical}", name, f"Subflow {cic} {short}", name, python)


def _periods() -> Iterator[Spelled]:
    for period in ("Active", "Idle"):
        for name in ("Mean", "Std", "Max", "Min"):
            long, low = f"{period} {name}", f"{period}_{name}".lower()
            yield Spelled(f"{low}_us", long, long, long, low)


FEATURES = (
    Spelled("flow_duration_us", "Flow Duration", "Flow Duration", "Flow Duration", "flow_duration"),
    Spelled("fwd_packets", "Total Fwd Packet", "Tot Fwd Pkts", "Total Fwd Packets", "tot_fwd_pkts"),
    Spelled("rev_packets", "Total Bwd packets", "Tot Bwd Pkts", "Total Backward Packets", "tot_bwd_pkts"),
    Spelled(
        "fwd_payload_octets",
        "Total Length of Fwd Packet",
        "TotLen Fwd Pkts",
        "Total Length of Fwd Packets",
        "totlen_fwd_pkts",
    ),
    Spelled(
        "rev_payload_octets",
        "Total Length of Bwd Packet",
        "TotLen Bwd Pkts",
        "Total Length of Bwd Packets",
        "totlen_bwd_pkts",
    ),
    *_lengths("fwd", "Fwd", "fwd"),
    *_lengths("rev", "Bwd", "bwd"),
    Spelled("flow_payload_octets_per_s", "Flow Bytes/s", "Flow Byts/s", "Flow Bytes/s", "flow_byts_s"),
    Spelled("flow_packets_per_s", "Flow Packets/s", "Flow Pkts/s", "Flow Packets/s", "flow_pkts_s"),
    *_gaps("flow", "Flow", "Mean", "Std", "Max", "Min"),
    *_gaps("fwd", "Fwd", "Total", "Mean", "Std", "Max", "Min"),
    *_gaps("rev", "Bwd", "Total", "Mean", "Std", "Max", "Min"),
    *_flags(),
    Spelled("fwd_header_octets", "Fwd Header Length", "Fwd Header Len", "Fwd Header Length", "fwd_header_len"),
    Spelled("rev_header_octets", "Bwd Header Length", "Bwd Header Len", "Bwd Header Length", "bwd_header_len"),
    Spelled("fwd_packets_per_s", "Fwd Packets/s", "Fwd Pkts/s", "Fwd Packets/s", "fwd_pkts_s"),
    Spelled("rev_packets_per_s", "Bwd Packets/s", "Bwd Pkts/s", "Bwd Packets/s", "bwd_pkts_s"),
    Spelled("flow_payload_octets_min", "Packet Length Min", "Pkt Len Min", "Min Packet Length", "pkt_len_min"),
    Spelled("flow_payload_octets_max", "Packet Length Max", "Pkt Len Max", "Max Packet Length", "pkt_len_max"),
    Spelled("flow_payload_octets_mean", "Packet Length Mean", "Pkt Len Mean", "Packet Length Mean", "pkt_len_mean"),
    Spelled("flow_payload_octets_std", "Packet Length Std", "Pkt Len Std", "Packet Length Std", "pkt_len_std"),
    Spelled(
        "flow_payload_octets_variance",
        "Packet Length Variance",
        "Pkt Len Var",
        "Packet Length Variance",
        "pkt_len_var",
    ),
    *_flag_counts(),
    Spelled("down_up_ratio", "Down/UpRatio", "Down/Up Ratio", "Down/Up Ratio", "down_up_ratio"),
    Spelled("flow_payload_octets_mean", "Average Packet Size", "Pkt Size Avg", "Average Packet Size", "pkt_size_avg"),
    Spelled(
        "fwd_payload_octets_mean",
        "Fwd Segment Size Avg",
        "Fwd Seg Size Avg",
        "Avg Fwd Segment Size",
        "fwd_seg_size_avg",
    ),
    Spelled(
        "rev_payload_octets_mean",
        "Bwd Segment Size Avg",
        "Bwd Seg Size Avg",
        "Avg Bwd Segment Size",
        "bwd_seg_size_avg",
    ),
    *_bulks(),
    *_subflows(),
    Spelled(
        "fwd_tcp_window_first", "FWD Init Win Bytes", "Init Fwd Win Byts", "Init_Win_bytes_forward", "init_fwd_win_byts"
    ),
    Spelled(
        "rev_tcp_window_first",
        "Bwd Init Win Bytes",
        "Init Bwd Win Byts",
        "Init_Win_bytes_backward",
        "init_bwd_win_byts",
    ),
    Spelled("fwd_payload_packets", "Fwd Act Data Pkts", "Fwd Act Data Pkts", "act_data_pkt_fwd", "fwd_act_data_pkts"),
    Spelled(
        "fwd_header_octets_min", "Fwd Seg Size Min", "Fwd Seg Size Min", "min_seg_size_forward", "fwd_seg_size_min"
    ),
    *_periods(),
)
"""In CICFlowMeter's order. Lengths are transport payload, times µs, variances of the sample (n − 1)."""


def _flow_id(*parts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*(part.cast(pa.string()) for part in parts), "-")


def _labels(labels: pa.Array) -> pa.Array:
    return labels.fill_null("")


FLOW_ID = Conversion("joined by `-`", _flow_id)
LABEL = Conversion("empty where unlabelled", _labels)

COLUMNS = (
    Column("Flow ID", ("src_ip", "dst_ip", "src_port", "dst_port", "protocol"), FLOW_ID, "identity"),
    *(
        Column(row.cic, (row.canonical,), UTC_TEXT if row.cic == "Timestamp" else UNCHANGED, "identity")
        for row in IDENTIFICATION
    ),
    *(Column(row.cic, (row.canonical,), ZERO) for row in FEATURES),
    Column("Label", ("label",), LABEL, "label"),
)
