"""From ended rows of the table to contiguous arrays, one of each family."""

from typing import Any

import numpy as np

from transforms.fold import open_row, release
from transforms.identity import KEY
from transforms.kernel import kernel, kernel_part
from transforms.octets import copy_octets
from transforms.records import ICMP, ICMPV6
from transforms.table_layout import BLANK, FAMILIES, ICMP_PORTS, SCRATCH, VNI_IN_KEY

RECORD = np.dtype(
    [
        ("key", KEY),
        ("record_number", "u4"),
        ("end_reason", "u1"),  # 0 in an interim record
        ("tunnel", "u1"),
        ("src_mac", "u8"),
        ("dst_mac", "u8"),
        ("outer_src_hi", "u8"),
        ("outer_src_lo", "u8"),
        ("outer_dst_hi", "u8"),
        ("outer_dst_lo", "u8"),
    ],
    align=True,
)
"""What a flow record says beside counters and features, initiator first."""


def places(row: np.dtype, n: int) -> tuple[np.ndarray, int]:
    """Where each family's states lie in a row of the table, and in a buffer for `n` flows.

    Returns:
        `int64[families, 3]` of offset in a row, size, and beginning in the buffer; and the buffer's size. Beginnings
        are multiples of 64.
    """
    fields: Any = row.fields
    states, states_at = fields["states"][:2]
    table, end = [], 0
    for name in states.names or ():
        dtype, offset = states.fields[name][:2]
        table.append((states_at + offset, dtype.itemsize, end))
        end += -(-dtype.itemsize * n // 64) * 64
    return np.array(table, np.int64).reshape(-1, 3), end


@kernel_part
def _fill_record(record, head, thread, limits):
    first = head.first
    key = record.key
    ports = limits[ICMP_PORTS] != 0 or (first.protocol != ICMP and first.protocol != ICMPV6)
    src_port = first.src_port if ports else np.uint16(0)
    dst_port = first.dst_port if ports else np.uint16(0)
    if head.flipped:
        key.src_hi, key.src_lo, key.dst_hi, key.dst_lo = first.dst_hi, first.dst_lo, first.src_hi, first.src_lo
        key.src_port, key.dst_port = dst_port, src_port
        record.src_mac, record.dst_mac = first.dst_mac, first.src_mac
        record.outer_src_hi, record.outer_src_lo = first.outer_dst_hi, first.outer_dst_lo
        record.outer_dst_hi, record.outer_dst_lo = first.outer_src_hi, first.outer_src_lo
    else:
        key.src_hi, key.src_lo, key.dst_hi, key.dst_lo = first.src_hi, first.src_lo, first.dst_hi, first.dst_lo
        key.src_port, key.dst_port = src_port, dst_port
        record.src_mac, record.dst_mac = first.src_mac, first.dst_mac
        record.outer_src_hi, record.outer_src_lo = first.outer_src_hi, first.outer_src_lo
        record.outer_dst_hi, record.outer_dst_lo = first.outer_dst_hi, first.outer_dst_lo
    key.vlan_id = first.vlan_id
    key.vni = first.vni if limits[VNI_IN_KEY] else -1
    key.protocol = first.protocol
    key.ip_version = first.ip_version
    key.flow_first_ns = thread.flow_first_ns
    key.flow_part = thread.flow_part
    key.ordinal = head.ordinal
    record.record_number = head.records
    record.tunnel = first.tunnel


@kernel
def gather(which, interim, heads, rows, octets, row_octets, where, limits, records, flows, states):
    """Copies the flows `which` out of the table: the state of family *f* of flow *j* to its place in `states`.

    Args:
        which: Numbers of heads.
        interim: The flows go on.
        heads: Heads of the table.
        rows: Rows of the table.
        octets: The same memory, flat.
        row_octets: Size of a row.
        where: As `places` has it.
        limits: Settings of the fold.
        records: `RECORD[n]`, written.
        flows: `FLOW[n]`, written.
        states: `uint8[...]`, written.
    """
    for j in range(len(which)):
        head = heads[which[j]]
        at = np.int64(head.row)
        if at < 0:
            at = SCRATCH
            open_row(rows[SCRATCH], rows[BLANK], head, limits[FAMILIES])
        row = rows[at]
        flows[j] = row.flow
        flow = flows[j]
        flow.end_reason = 0 if interim else head.end_reason
        _fill_record(records[j], head, row.thread, limits)
        records[j].end_reason = flow.end_reason
        for family in range(len(where)):
            begin, size = where[family, 0], where[family, 1]
            copy_octets(states, where[family, 2] + j * size, octets, at * row_octets + begin, size)


@kernel
def retire(which, heads, free, free_rows, counts):
    """Frees the heads `which`, and their rows."""
    for i in which:
        release(heads, i, free, free_rows, counts)
