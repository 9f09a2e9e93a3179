"""`flowtbag@1`: the 45 columns of flowtbag. Lengths are IP total lengths, times µs; a gap over 1 s is idle."""

from collections.abc import Iterator

from transforms.features.columns import SUM, UNCHANGED, ZERO, Column

_STATISTICS = ("min", "mean", "max", "std")
_SIDES = (("f", "fwd"), ("b", "rev"))


def _features() -> Iterator[Column]:
    for letter, side in _SIDES:
        yield Column(f"total_{letter}packets", (f"{side}_packets",), ZERO)
        yield Column(f"total_{letter}volume", (f"{side}_ip_octets",), ZERO)
    for ending, middle, unit in (("pktl", "ip_octets", ""), ("iat", "iat", "_us")):
        for letter, side in _SIDES:
            for name in _STATISTICS:
                yield Column(f"{name}_{letter}{ending}", (f"{side}_{middle}_{name}{unit}",), ZERO)
    yield Column("duration", ("flow_duration_us",), ZERO)
    for period in ("active", "idle"):
        for name in _STATISTICS:
            yield Column(f"{name}_{period}", (f"{period}_1s_{name}_us",), ZERO)
    for letter, side in _SIDES:
        yield Column(f"sflow_{letter}packets", (f"{side}_subflow_packets",), ZERO)
        yield Column(f"sflow_{letter}bytes", (f"{side}_subflow_ip_octets",), ZERO)
    for flag in ("psh", "urg"):
        for letter, side in _SIDES:
            yield Column(f"{letter}{flag}_cnt", (f"{side}_{flag}_count",), ZERO)
    for letter, side in _SIDES:
        yield Column(f"total_{letter}hlen", (f"{side}_ip_header_octets", f"{side}_header_octets"), SUM)
    yield Column("dscp", ("dscp",), ZERO)


COLUMNS = (
    Column("srcip", ("src_ip",), UNCHANGED, "identity"),
    Column("srcport", ("src_port",), UNCHANGED, "identity"),
    Column("dstip", ("dst_ip",), UNCHANGED, "identity"),
    Column("dstport", ("dst_port",), UNCHANGED, "identity"),
    Column("proto", ("protocol",), UNCHANGED, "identity"),
    *_features(),
)
