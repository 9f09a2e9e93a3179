"""Avro binary of the packets of a block, straight from and to `PACKET` rows.

The order of fields is that of `Packet` in schemas/packet_block.avsc. The decoder reads up to `PADDING` octets past the
end before it notices, so that not every octet has to be asked for: whoever calls it pads the message.
"""

import numpy as np

from transforms.kernel import kernel, kernel_part

PACKET_OCTETS_LEAST = 54
"""Of an encoded packet: IPv4, every number in one octet, no payload."""

PACKET_OCTETS_MOST = 192
"""Of an encoded packet without its payload: IPv6 in IPv6, every number as long as its field allows."""

PADDING = 512
"""More than a packet without its payload can take, were each of its numbers ten octets long."""

_IPV4_PREFIX = np.uint64(0xFFFF)
_U1, _U2, _U4 = 2**8 - 1, 2**16 - 1, 2**32 - 1
_SPAN = np.array([_U2, _U2, _U1, _U4, _U4, _U4, _U2, _U2, _U4, _U4, _U1, _U2, _U1, _U1, _U4, 3, 2, _U2, 6, 2**31], "u8")
_LEAST = np.array([0] * 19 + [-1], "i8")
"""Ranges of the numbers between addresses and MACs: from `_LEAST` to `_LEAST` + `_SPAN`."""

_ANY_LEAST, _ANY_SPAN = np.array([-(2**63)], "i8"), np.array([2**64 - 1], "u8")
_LENGTH_LEAST, _LENGTH_SPAN = np.array([0], "i8"), np.array([_U4], "u8")


@kernel_part
def put_long(out, at, value):
    """Writes a zigzag variable-length number; returns the place after it."""
    bits = np.uint64((value << 1) ^ (value >> 63))
    place = np.uint64(at)  # an unsigned index needs no check for counting from the end
    while bits >= np.uint64(128):
        out[place] = np.uint8(bits & np.uint64(127)) | np.uint8(128)
        bits >>= np.uint64(7)
        place += np.uint64(1)
    out[place] = np.uint8(bits)
    return np.int64(place) + 1


@kernel_part
def put_octets(out, at, number, octets):
    """Writes the lowest `octets` octets of a number, network order."""
    place = np.uint64(at)
    for i in range(octets):
        out[place + np.uint64(i)] = np.uint8((number >> np.uint64(8 * (octets - 1 - i))) & np.uint64(255))
    return at + octets


@kernel_part
def put_address(out, at, hi, lo, octets):
    """Writes an IP address as 0, 4 or 16 octets with their length."""
    out[np.uint64(at)] = np.uint8(2 * octets)
    at += 1
    if octets == 4:
        return put_octets(out, at, lo, 4)
    if octets == 16:
        return put_octets(out, put_octets(out, at, hi, 8), lo, 8)
    return at


@kernel_part
def outer_address_octets(hi, lo):
    """The length of an outer address, of which no version is kept: 0 when there is none."""
    if hi == np.uint64(0):
        if lo == np.uint64(0):
            return 0
        if lo >> np.uint64(32) == _IPV4_PREFIX:
            return 4
    return 16


@kernel_part
def encodable(packet, payloads_octets):
    """Whether a row keeps to what `PACKET` promises, so that it comes back as it is."""
    if packet.ip_version == 4:
        high = packet.src_hi | packet.dst_hi
        if (
            high != 0
            or packet.src_lo >> np.uint64(32) != _IPV4_PREFIX
            or packet.dst_lo >> np.uint64(32) != _IPV4_PREFIX
        ):
            return False
    elif packet.ip_version != 6:
        return False
    if (packet.src_mac | packet.dst_mac) >> np.uint64(48) != 0:
        return False
    if packet.tunnel > 6 or packet.fragment > 3 or packet.transport > 2:
        return False
    captured = np.int64(packet.payload_captured)
    return captured == 0 or np.int64(packet.payload_at) + captured <= payloads_octets


@kernel
def encode_packets(packets, payloads, out):
    """Writes packets one after another; returns how many octets, or -1 - row of the first that cannot be written."""
    at = 0
    for i in range(len(packets)):
        p = packets[i]
        if not encodable(p, len(payloads)):
            return -1 - i
        address_octets = 4 if p.ip_version == 4 else 16
        at = put_long(out, at, p.time_ns)
        at = put_address(out, at, p.src_hi, p.src_lo, address_octets)
        at = put_address(out, at, p.dst_hi, p.dst_lo, address_octets)
        at = put_long(out, at, np.int64(p.src_port))
        at = put_long(out, at, np.int64(p.dst_port))
        at = put_long(out, at, np.int64(p.protocol))
        at = put_long(out, at, np.int64(p.frame_octets))
        at = put_long(out, at, np.int64(p.ip_octets))
        at = put_long(out, at, np.int64(p.payload_octets))
        at = put_long(out, at, np.int64(p.ip_header_octets))
        at = put_long(out, at, np.int64(p.header_octets))
        at = put_long(out, at, np.int64(p.tcp_seq))
        at = put_long(out, at, np.int64(p.tcp_ack))
        at = put_long(out, at, np.int64(p.tcp_flags))
        at = put_long(out, at, np.int64(p.tcp_window))
        at = put_long(out, at, np.int64(p.ttl))
        at = put_long(out, at, np.int64(p.tos))
        at = put_long(out, at, np.int64(p.fragment_id))
        at = put_long(out, at, np.int64(p.fragment))
        at = put_long(out, at, np.int64(p.transport))
        at = put_long(out, at, np.int64(p.vlan_id))
        at = put_long(out, at, np.int64(p.tunnel))
        at = put_long(out, at, np.int64(p.vni))
        at = put_octets(out, at, p.src_mac, 6)
        at = put_octets(out, at, p.dst_mac, 6)
        at = put_octets(out, at, p.headers_hash, 8)
        at = put_address(out, at, p.outer_src_hi, p.outer_src_lo, outer_address_octets(p.outer_src_hi, p.outer_src_lo))
        at = put_address(out, at, p.outer_dst_hi, p.outer_dst_lo, outer_address_octets(p.outer_dst_hi, p.outer_dst_lo))
        captured = np.int64(p.payload_captured)
        at = put_long(out, at, captured)
        begin = np.int64(p.payload_at)
        for j in range(captured):
            out[at + j] = payloads[begin + j]
        at += captured
    return at


@kernel_part
def get_8_octets(octets, at):
    """Reads eight octets in network order as a number."""
    number = np.uint64(0)
    place = np.uint64(at)
    for i in range(8):
        number = (number << np.uint64(8)) | np.uint64(octets[place + np.uint64(i)])
    return number


@kernel_part
def get_address(octets, at):
    """Reads an IP address: (high, low, its length or -1 if that is not 0, 4 or 16)."""
    if octets[at] == 8:
        return np.uint64(0), (_IPV4_PREFIX << np.uint64(32)) | (get_8_octets(octets, at + 1) >> np.uint64(32)), 4
    if octets[at] == 32:
        return get_8_octets(octets, at + 1), get_8_octets(octets, at + 9), 16
    return np.uint64(0), np.uint64(0), 0 if octets[at] == 0 else -1


@kernel_part
def get_numbers(octets, at, least, span, numbers):
    """Reads as many variable-length numbers as there is room for; one loop, because a call for each costs more.

    Returns:
        The place after them, or -1 if one is not from `least` to `least` + `span`, or longer than ten octets.
    """
    right = True
    place = np.uint64(at)  # an unsigned index needs no check for counting from the end
    for i in range(len(numbers)):
        octet = octets[place]
        place += np.uint64(1)
        bits = np.uint64(octet)
        if octet >= 128:
            bits &= np.uint64(127)
            shift = np.uint64(7)
            while True:
                octet = octets[place]
                place += np.uint64(1)
                bits |= np.uint64(octet & 127) << shift
                if octet < 128:
                    break
                shift += np.uint64(7)
                if shift == np.uint64(63):
                    octet = octets[place]
                    place += np.uint64(1)
                    bits |= np.uint64(octet) << shift
                    right &= octet < 2
                    break
        number = np.int64(bits >> np.uint64(1)) ^ -np.int64(bits & np.uint64(1))
        right &= np.uint64(number - least[i]) <= span[i]
        numbers[i] = number
    return np.int64(place) if right else -1


@kernel
def decode_packets(octets, at, end, packets, payloads, payloads_octets):
    """Reads `len(packets)` packets that begin at `at` and their payload prefixes.

    `octets` has `PADDING` more than `end`; `payloads` has room for all that `octets` can hold.

    Returns:
        The place after them and the end of `payloads`; or -1 and the place of the packet that is damaged.
    """
    time = np.empty(1, np.int64)
    numbers = np.empty(len(_LEAST), np.int64)
    length = np.empty(1, np.int64)
    for i in range(len(packets)):
        p = packets[i]
        begin = at
        at = get_numbers(octets, at, _ANY_LEAST, _ANY_SPAN, time)
        if at < 0:
            return -1, begin
        p.time_ns = time[0]
        p.src_hi, p.src_lo, address_octets = get_address(octets, at)
        p.dst_hi, p.dst_lo, other_octets = get_address(octets, at + 1 + address_octets)
        if address_octets < 4 or other_octets != address_octets:
            return -1, begin
        p.ip_version = 4 if address_octets == 4 else 6
        at = get_numbers(octets, at + 2 + 2 * address_octets, _LEAST, _SPAN, numbers)
        if at < 0:
            return -1, begin
        p.src_port = numbers[0]
        p.dst_port = numbers[1]
        p.protocol = numbers[2]
        p.frame_octets = numbers[3]
        p.ip_octets = numbers[4]
        p.payload_octets = numbers[5]
        p.ip_header_octets = numbers[6]
        p.header_octets = numbers[7]
        p.tcp_seq = numbers[8]
        p.tcp_ack = numbers[9]
        p.tcp_flags = numbers[10]
        p.tcp_window = numbers[11]
        p.ttl = numbers[12]
        p.tos = numbers[13]
        p.fragment_id = numbers[14]
        p.fragment = numbers[15]
        p.transport = numbers[16]
        p.vlan_id = numbers[17]
        p.tunnel = numbers[18]
        p.vni = numbers[19]
        p.src_mac = get_8_octets(octets, at) >> np.uint64(16)
        p.dst_mac = get_8_octets(octets, at + 6) >> np.uint64(16)
        p.headers_hash = get_8_octets(octets, at + 12)
        at += 20
        p.outer_src_hi, p.outer_src_lo, address_octets = get_address(octets, at)
        p.outer_dst_hi, p.outer_dst_lo, other_octets = get_address(octets, at + 1 + address_octets)
        if address_octets < 0 or other_octets < 0:
            return -1, begin
        at += 2 + address_octets + other_octets
        captured = 0
        if octets[at] == 0:
            at += 1
        else:
            at = get_numbers(octets, at, _LENGTH_LEAST, _LENGTH_SPAN, length)
            captured = length[0]
        if at < 0 or captured > end - at:
            return -1, begin
        p.payload_at = payloads_octets if captured else 0
        p.payload_captured = captured
        p.payload_entropy = np.nan
        for j in range(captured):
            payloads[payloads_octets + j] = octets[at + j]
        payloads_octets += captured
        at += captured
    return at, payloads_octets
