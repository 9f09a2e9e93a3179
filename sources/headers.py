"""The header parser: blocks of frames in, rows of `PACKET` out, one compiled pass.

Every frame ends as a row or under a reason. A row is keyed on the innermost IP header that was opened: `tunnels` says
what is opened, `link_layers` and `ethertypes` what is peeled below IP, `ip_headers` what is damaged,
`transport_headers` what is measured. No octet beyond the captured end of a frame is ever read.
"""

from dataclasses import dataclass

import numpy as np

from sources.byte_order import be16
from sources.ethertypes import IP, LINK, by_ethertype, find_ip, reset, set_macs
from sources.ip_headers import IP_HEADER, fill_ip, read_ip_header
from sources.link_layers import open_frame
from sources.transport_headers import fill_transport
from sources.tunnels import INSIDE, may_be_tunnel, open_tunnels
from sources.xxh64 import xxh64
from transforms.kernel import kernel
from transforms.records import (
    REJECT_MALFORMED,
    REJECT_NOT_IP,
    TUNNEL_NAMES,
    TUNNEL_NONE,
    InputError,
)

TUNNEL_KINDS = TUNNEL_NAMES[1:]
"""What `--decapsulate` may name."""

REASONS = ("", REJECT_NOT_IP, REJECT_MALFORMED)
"""Reasons by number: 0 is a packet that was accepted."""

_ACCEPTED, _NOT_IP, _MALFORMED = range(3)
_ETHERNET_LINK_TYPE = 1
_LENGTH_BITS = 20
_LONGEST = (1 << _LENGTH_BITS) - 1


@dataclass
class HeaderSettings:
    """What of a packet is kept, and which of its headers it is keyed on.

    Attributes:
        decapsulate: Kinds of tunnels to open, of `TUNNEL_KINDS`; none keys every packet on its outer IP header.
        payload_octets: Octets of each packet's transport payload to keep.
        headers_hash: Whether to hash each packet's headers, to find packets that were captured twice: XXH64 (seed 0) of
            what was captured from the outermost IP header to the end of the innermost transport header; never 0.

    Raises:
        InputError: If a kind is unknown or the number of octets makes no sense.
    """

    decapsulate: tuple[str, ...] = TUNNEL_KINDS
    payload_octets: int = 0
    headers_hash: bool = False

    def __post_init__(self) -> None:
        for kind in self.decapsulate:
            if kind not in TUNNEL_KINDS:
                raise InputError(
                    f"--decapsulate: unknown tunnel {kind!r}; choose of {', '.join(TUNNEL_KINDS)}, or none"
                )
        if not 0 <= self.payload_octets <= 65535:
            raise InputError(f"--payload_octets: {self.payload_octets} is not between 0 and 65535")


def parse(
    octets: np.ndarray,
    frames: np.ndarray,
    settings: HeaderSettings,
    packets: np.ndarray,
    payloads: np.ndarray,
    reasons: np.ndarray,
) -> tuple[int, int]:
    """Parses the headers of a block of frames. Nothing in a frame raises.

    Args:
        octets: `uint8[m]`, the buffer that the frames lie in.
        frames: `FRAME[n]`.
        settings: What to open and what to keep.
        packets: `PACKET[k]` with k ≥ n; filled from the front, without gaps, in the order of the frames.
        payloads: `uint8[p]` with p ≥ n × `settings.payload_octets`; filled from the front with payload prefixes.
        reasons: `uint8[n]`; set to the index in `REASONS` of each frame: 0 accepted, 1 `not_ip`, 2 `malformed`.

    Returns:
        The number of packets, and of octets of payload prefixes, that were written.

    Raises:
        ValueError: If an output is too small.
    """
    if len(packets) < len(frames) or len(reasons) < len(frames):
        raise ValueError(f"{len(frames)} frames do not fit into {len(packets)} packets and {len(reasons)} reasons")
    if len(payloads) < len(frames) * settings.payload_octets:
        raise ValueError(f"{len(frames)} payload prefixes do not fit into {len(payloads)} octets")
    opened = sum(1 << TUNNEL_NAMES.index(kind) for kind in settings.decapsulate)
    written = _parse_frames(
        _read_only(octets),
        _read_only(frames),
        opened,
        settings.payload_octets,
        settings.headers_hash,
        packets,
        payloads,
        reasons,
        np.empty(2, LINK),
        np.empty(2, IP_HEADER),
        np.empty(1, INSIDE),
    )
    if settings.headers_hash:
        _hash_headers(_read_only(octets), packets, written[0])
    return int(written[0]), int(written[1])


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to, so that mapped files and buffers share one compiled kernel."""
    view = array.view()
    view.flags.writeable = False
    return view


@kernel
def _parse_frames(octets, frames, opened, payload_octets, hashed, packets, payloads, reasons, links, headers, insides):
    written = 0
    payload_at = 0
    link, inside = links[0], insides[0]
    for i in range(len(frames)):
        frame = frames[i]
        start = frame.offset
        end = start + np.int64(frame.captured)
        if frame.damaged or start < 0 or end > len(octets):
            reasons[i] = _MALFORMED
            continue
        at = start
        if frame.link_type == _ETHERNET_LINK_TYPE and at + 14 <= end:  # the short way to what most captures hold
            reset(link)
            set_macs(octets, link, at, at + 6)
            by_ethertype(link, be16(octets, at + 12))
            at += 14
        else:
            at = open_frame(octets, at, end, np.int64(frame.link_type), link)
        if link.layer != IP:
            at = find_ip(octets, at, end, link)
        if at < 0:
            reasons[i] = _NOT_IP
            continue
        ip = headers[0]
        if not read_ip_header(octets, at, end, start + np.int64(frame.frame_octets), ip):
            reasons[i] = _MALFORMED
            continue
        packet = packets[written]
        packet.tunnel = TUNNEL_NONE
        packet.vni = -1
        packet.outer_src_hi = 0
        packet.outer_src_lo = 0
        packet.outer_dst_hi = 0
        packet.outer_dst_lo = 0
        if opened and may_be_tunnel(octets, ip):
            fill_ip(octets, ip, packet)
            ip = headers[open_tunnels(octets, opened, headers, links, inside)]
            if inside.outermost != TUNNEL_NONE:
                packet.outer_src_hi = packet.src_hi
                packet.outer_src_lo = packet.src_lo
                packet.outer_dst_hi = packet.dst_hi
                packet.outer_dst_lo = packet.dst_lo
                packet.tunnel = inside.outermost
                packet.vni = inside.outermost_vni
        fill_ip(octets, ip, packet)
        inside_at = fill_transport(octets, ip, packet)
        packet.time_ns = frame.time_ns
        packet.frame_octets = frame.frame_octets
        packet.src_mac = link.src_mac
        packet.dst_mac = link.dst_mac
        packet.vlan_id = link.vlan_id
        packet.headers_hash = 0
        if hashed:
            packet.headers_hash = (at << _LENGTH_BITS) | min(min(inside_at, ip.stop) - at, _LONGEST)
        kept = min(payload_octets, max(ip.stop - inside_at, 0))
        for k in range(kept):
            payloads[payload_at + k] = octets[inside_at + k]
        packet.payload_at = payload_at
        packet.payload_captured = kept
        packet.payload_entropy = np.nan
        payload_at += kept
        reasons[i] = _ACCEPTED
        written += 1
    return written, payload_at


@kernel
def _hash_headers(octets, packets, count):
    """Replaces in `headers_hash` the place and length of headers, as `_parse_frames` left them, by their hash.

    A pass of its own, because few runs need it and none should wait for it to be compiled.
    """
    for i in range(count):
        place = np.int64(packets[i].headers_hash)
        at = place >> _LENGTH_BITS
        packets[i].headers_hash = max(xxh64(octets, at, at + (place & _LONGEST)), np.uint64(1))
