"""Builders and references that the tests share: packets by hand, one flow through one family, plain statistics."""

import statistics
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from transforms import records
from transforms.features.flow_state import FLOW
from transforms.fold import count

START_NS = 1_700_000_000_000_000_000
"""Time of a packet at 0 s: no feature may mistake an absolute time for a duration."""

IPV4 = 0xFFFF << 32
INITIATOR, RESPONDER = IPV4 | 0x0A000001, IPV4 | 0x0A000002
INITIATOR_PORT, RESPONDER_PORT = 1234, 80

SETTINGS = SimpleNamespace(activity_timeout_s=5.0)
"""The settings that families read, with their defaults."""


def packets(
    at_s: Sequence[float] = (0,),
    payload: int | Sequence[int] = 0,
    forward: bool | Sequence[bool] = True,
    flags: int | Sequence[int] = records.ACK,
    protocol: int = records.TCP,
    **columns: Any,
) -> np.ndarray:
    """Packets between 10.0.0.1:1234, the initiator, and 10.0.0.2:80.

    Every argument but `protocol` is one value for all packets or one for each.

    Args:
        at_s: Seconds after `START_NS`, exact to the nanosecond.
        payload: Octets of transport payload; IP and frame lengths follow from it.
        forward: Whether the initiator sent it.
        flags: TCP flags.
        protocol: IANA number; it decides the default `header_octets` (TCP 20, all else 8).
        columns: Any other column of `PACKET`, applied last.

    Returns:
        `PACKET[len(at_s)]`, in the order given.
    """
    made = np.zeros(len(at_s), records.PACKET)
    made["time_ns"] = [START_NS + round(at * 1e9) for at in at_s]
    made["protocol"] = protocol
    made["ip_version"] = 4
    made["vni"] = -1
    made["ttl"] = 64
    made["payload_entropy"] = np.nan
    made["transport"] = records.TRANSPORT_WHOLE
    made["header_octets"] = columns.pop("header_octets", 20 if protocol == records.TCP else 8)
    made["ip_header_octets"] = columns.pop("ip_header_octets", 20)
    made["payload_octets"] = payload
    made["ip_octets"] = made["payload_octets"] + made["header_octets"] + made["ip_header_octets"]
    made["frame_octets"] = np.maximum(made["ip_octets"] + 14, 60)
    if protocol == records.TCP:
        made["tcp_flags"] = flags
        made["tcp_window"] = 65535
    sent_forward = np.broadcast_to(forward, len(made))
    for name, ours, theirs in (("lo", INITIATOR, RESPONDER), ("port", INITIATOR_PORT, RESPONDER_PORT)):
        source, destination = ("src_" + name, "dst_" + name)
        made[source] = np.where(sent_forward, ours, theirs)
        made[destination] = np.where(sent_forward, theirs, ours)
    for name, values in columns.items():
        made[name] = values
    return made


def fold_family(
    family: ModuleType,
    packets: np.ndarray,
    forward: Sequence[bool] | None = None,
    settings: Any = None,
    end_reason: int = 0,
) -> dict[str, Any]:
    """One flow's packets through one family, as the table folds them.

    Args:
        family: A module as `transforms.features` describes it.
        packets: `PACKET[n]`, in time order.
        forward: Whether the initiator sent each; without it, whether 10.0.0.1 did.
        settings: What `family.initial` receives; `SETTINGS` without it.
        end_reason: What the table found at the end, IPFIX 136.

    Returns:
        The value of each column, as Arrow gives it to Python: None for null, a list for a list column.
    """
    (row,) = fold_flows(family, [packets], None if forward is None else [forward], settings, end_reason)
    return row


def fold_flows(
    family: ModuleType,
    flows: Sequence[np.ndarray],
    forward: Sequence[Sequence[bool]] | None = None,
    settings: Any = None,
    end_reason: int = 0,
) -> list[dict[str, Any]]:
    """Several flows through one family and finished in one batch: `fold_family` of each, in order."""
    rows = np.zeros(len(flows), FLOW)
    states = initial_states(family, len(flows), settings)
    for index, flow in enumerate(flows):
        sent = flow["src_lo"] == INITIATOR if forward is None else forward[index]
        for packet, sent_forward in zip(flow, sent, strict=True):
            if states is not None:
                family.update(states[index], rows[index], packet, bool(sent_forward))
            count(rows[index], packet, bool(sent_forward))
    rows["end_reason"] = end_reason
    columns = {}
    for field, (name, values) in zip(family.FIELDS, family.features(states, rows), strict=True):
        assert name == field.name
        columns[name] = [None] * len(flows) if values is None else arrow(values, field.type).to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def initial_states(family: ModuleType, n: int, settings: Any = None) -> np.ndarray | None:
    """`STATE[n]` before the first packet; None for a family without state."""
    if family.STATE is None:
        return None
    states = np.zeros(n, family.STATE)
    if hasattr(family, "initial"):
        states[:] = family.initial(settings or SETTINGS)
    return states


def arrow(values: Any, kind: pa.DataType) -> pa.Array:
    """What a family yields as an Arrow array of its field's type; a masked value is null, NaN stays NaN."""
    if isinstance(values, np.ma.MaskedArray):
        return pa.array(values.data, kind, mask=np.ma.getmaskarray(values), from_pandas=False)
    if isinstance(values, np.ndarray):
        return pa.array(values, kind, from_pandas=False)
    assert values.type == kind
    return values


def described(values: Sequence[int], divisor: float = 1.0) -> dict[str, float | None]:
    """Minimum, maximum, mean, sample std and variance, total, of plain whole numbers; None for no values."""
    if not values:
        return dict.fromkeys(("min", "max", "mean", "std", "variance", "total"))
    several = len(values) > 1
    return {
        "min": min(values) / divisor,
        "max": max(values) / divisor,
        "mean": statistics.fmean(values) / divisor,
        "std": statistics.stdev(values) / divisor if several else 0.0,
        "variance": statistics.variance(values) / divisor**2 if several else 0.0,
        "total": sum(values) / divisor,
    }


def nearly(columns: dict[str, Any], rel: float = 1e-12) -> dict[str, Any]:
    """Columns to compare with: numbers within `rel`, None only equal to None."""
    return {name: None if value is None else pytest.approx(value, rel=rel) for name, value in columns.items()}


GAPS_NS = (0, 1, 999, 1_000_000, 999_999_999, 1_000_000_000, 1_000_000_001, 5_000_000_000, 5_000_000_001, 7_500_000_000)
"""Gaps at which rules change, and a few between."""


@st.composite
def one_flow(draw: st.DrawFn, max_packets: int = 24) -> np.ndarray:
    """A flow's packets in time order, either side first: whole, truncated, later fragments, TCP or UDP."""
    n = draw(st.integers(1, max_packets))

    def each(*choices: Any) -> list[Any]:
        return draw(st.lists(st.sampled_from(choices), min_size=n, max_size=n))

    at_ns = np.cumsum(each(*GAPS_NS))
    protocol = draw(st.sampled_from((records.TCP, records.TCP, records.UDP)))
    made = packets(
        [0] * n,
        payload=each(0, 0, 1, 100, 1460),
        forward=each(True, True, False),
        flags=draw(st.lists(st.integers(0, 255), min_size=n, max_size=n)),
        protocol=protocol,
        header_octets=each(20, 32, 40) if protocol == records.TCP else 8,
        ttl=each(1, 63, 64, 255),
        tos=each(0, 0, 184),
    )
    made["time_ns"] += at_ns
    if protocol == records.TCP:
        made["tcp_window"] = each(0, 1, 512, 65535)
    for column, value in draw(st.sampled_from(BROKEN)).items():
        made[column][draw(st.integers(0, n - 1))] = value
    return made


BROKEN: tuple[dict[str, int], ...] = (
    {},
    {"transport": records.TRANSPORT_TRUNCATED, "tcp_flags": 0, "tcp_window": 0},
    {
        "transport": records.TRANSPORT_NONE,
        "fragment": records.FRAGMENT_RESOLVED,
        "tcp_flags": 0,
        "tcp_window": 0,
        "header_octets": 0,
    },
)
"""What may befall one packet: nothing, a cut transport header, being a later fragment."""
