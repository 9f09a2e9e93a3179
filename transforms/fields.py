"""What a column of a flow record is, and the columns that every flow record has."""

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa


class Field(NamedTuple):
    """One column of a flow record.

    Attributes:
        name: Canonical name; the unit stands at its end.
        type: Arrow type.
        unit: Unit of the values, empty for names, flags and plain numbers.
        doc: What it means, one sentence.
        ipfix: IANA IPFIX information element, where there is one.
        ecs: Elastic Common Schema field, where there is one.
    """

    name: str
    type: pa.DataType
    unit: str
    doc: str
    ipfix: str = ""
    ecs: str = ""


def arrow_schema(fields: Iterable[Field]) -> pa.Schema:
    """The Arrow schema of `fields`, with unit, definition and foreign names as field metadata."""
    return pa.schema([_arrow_field(field) for field in fields])


def _arrow_field(field: Field) -> pa.Field:
    described = {"unit": field.unit, "doc": field.doc, "ipfix": field.ipfix, "ecs": field.ecs}
    return pa.field(field.name, field.type, metadata={key: text for key, text in described.items() if text})


def _sides() -> Iterable[Field]:
    for side, who, ipfix, ecs in (("fwd", "initiator", "", "source"), ("rev", "responder", "reverse ", "destination")):
        sent = f"sent by the {who}"
        yield Field(
            f"{side}_packets", pa.int64(), "packets", f"Packets {sent}.", f"{ipfix}packetDeltaCount 2", f"{ecs}.packets"
        )
        yield Field(f"{side}_frame_octets", pa.int64(), "octets", f"Octets on the wire {sent}, link header included.")
        yield Field(
            f"{side}_ip_octets",
            pa.int64(),
            "octets",
            f"Sum of IP total lengths {sent}.",
            f"{ipfix}octetDeltaCount 1",
            f"{ecs}.bytes",
        )
        yield Field(f"{side}_payload_octets", pa.int64(), "octets", f"Transport payload {sent}.")
        yield Field(f"{side}_tcp_flags", pa.uint8(), "", f"OR of the TCP flags {sent}.", f"{ipfix}tcpControlBits 6")


COMMON = (
    Field("flow_id", pa.binary(16), "", "XXH3-128 of key, first time, ordinal and part (id@1).", "", "event.id"),
    Field("flow_part", pa.int32(), "", "Part of a flow that active timeouts split, from 0."),
    Field("record_kind", pa.string(), "", "`final`, or `interim` for a cumulative report of an open flow."),
    Field("record_number", pa.int32(), "", "Version of the record: 0, 1, …; the final one is the highest."),
    Field("sensor", pa.string(), "", "Observation point.", "observationDomainName 300", "observer.name"),
    Field(
        "src_mac",
        pa.string(),
        "",
        "Link address that sent the first packet of the initiator's side.",
        "sourceMacAddress 56",
        "source.mac",
    ),
    Field(
        "dst_mac",
        pa.string(),
        "",
        "Link address on the responder's side of the first packet.",
        "destinationMacAddress 80",
        "destination.mac",
    ),
    Field("ip_version", pa.uint8(), "", "4 or 6.", "ipVersion 60", "network.type"),
    Field(
        "src_ip",
        pa.string(),
        "",
        "Initiator's address, RFC 5952.",
        "sourceIPv4Address 8, sourceIPv6Address 27",
        "source.ip",
    ),
    Field(
        "dst_ip",
        pa.string(),
        "",
        "Responder's address, RFC 5952.",
        "destinationIPv4Address 12, destinationIPv6Address 28",
        "destination.ip",
    ),
    Field("src_port", pa.uint16(), "", "Initiator's port; ICMP type.", "sourceTransportPort 7", "source.port"),
    Field(
        "dst_port",
        pa.uint16(),
        "",
        "Responder's port; ICMP type of the answer, or code.",
        "destinationTransportPort 11",
        "destination.port",
    ),
    Field("protocol", pa.uint8(), "", "IANA protocol number.", "protocolIdentifier 4", "network.iana_number"),
    Field("vlan_id", pa.uint16(), "", "Outermost VLAN; 0 without.", "vlanId 58", "network.vlan.id"),
    Field("community_id", pa.string(), "", "Community ID v1.", "", "network.community_id"),
    Field("flow_first_ns", pa.int64(), "ns", "First packet of part 0, since the Unix epoch."),
    Field(
        "flow_start_ns",
        pa.int64(),
        "ns",
        "First packet of this part, since the Unix epoch.",
        "flowStartNanoseconds 156",
        "event.start",
    ),
    Field(
        "flow_end_ns",
        pa.int64(),
        "ns",
        "Last packet of this part, since the Unix epoch.",
        "flowEndNanoseconds 157",
        "event.end",
    ),
    Field(
        "end_reason",
        pa.uint8(),
        "",
        "1 idle, 2 active, 3 end detected, 4 forced, 5 lack of resources; null while open.",
        "flowEndReason 136",
    ),
    Field("vni", pa.int32(), "", "VXLAN or Geneve network; null without.", "layer2SegmentId 351"),
    Field("tunnel", pa.string(), "", "Kind of the outermost opened tunnel; null without."),
    Field("outer_src_ip", pa.string(), "", "Outermost source address of the first packet, if tunnelled."),
    Field("outer_dst_ip", pa.string(), "", "Outermost destination address of the first packet, if tunnelled."),
    *_sides(),
)
"""The columns of every flow record, in order."""
