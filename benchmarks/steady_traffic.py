"""A capture in which the same number of flows is open all the time, if it is replayed at its rate, again and again.

    python benchmarks/steady_traffic.py FILE [--rate 100000] [--open_flows 200000]

UDP flows of both directions, each with a packet every one and a half seconds (at the rates above) for ten to sixty
seconds, then replaced by another. A flow counts as open until ten seconds after its last packet: `--idle_timeout_s=10`.
"""

import argparse
import struct
from pathlib import Path

import numpy as np

IDLE_TIMEOUT_S = 10.0
LIFE_S = (10.0, 60.0)
PASS_S = 120.0
"""The capture is that long; the keys of a pass come again in the next one, long after their flows have ended."""

PACKET = np.dtype(
    [("sec", "<u4"), ("nsec", "<u4"), ("captured", "<u4"), ("length", "<u4"),
     ("version", "u1"), ("tos", "u1"), ("ip_octets", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"),
     ("protocol", "u1"), ("ip_checksum", ">u2"), ("src_ip", ">u4"), ("dst_ip", ">u4"),
     ("src_port", ">u2"), ("dst_port", ">u2"), ("udp_octets", ">u2"), ("udp_checksum", ">u2")]
)  # fmt: skip
"""A record of a pcap file of raw IP, with the headers of a packet."""


def write_traffic(path: Path, rate: float, open_flows: int) -> None:
    """A capture in which as many flows are open at any time, if its packets come at this rate."""
    chosen = np.random.default_rng(1)
    lines = round(open_flows / (1 + IDLE_TIMEOUT_S / np.mean(LIFE_S)))  # each is one flow after another
    round_s = lines / rate
    rounds = round(PASS_S / round_s)
    lives = chosen.uniform(*LIFE_S, (lines, int(PASS_S / LIFE_S[0]) + 1)) / round_s
    ends = np.cumsum(lives, axis=1).astype(np.int64)
    moved = chosen.integers(0, rounds, lines)  # else all lines would begin anew with each pass
    packets = np.zeros(lines, PACKET)
    packets["captured"] = PACKET.itemsize - 16
    packets["version"], packets["ttl"], packets["protocol"] = 0x45, 64, 17
    client = 0x0A000000 + np.arange(lines)
    server = 0xC6336400 + chosen.integers(1, 250, lines)
    service = chosen.choice([53, 123, 443, 4500, 51820], lines)
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 16, 101))
        for number in range(rounds):
            flow = 1024 + (ends <= ((number + moved) % rounds)[:, None]).sum(axis=1)
            forward = bool(number % 2)
            for name, one, other in (("ip", client, server), ("port", flow, service)):
                packets[f"src_{name}"], packets[f"dst_{name}"] = (one, other) if forward else (other, one)
            packets["udp_octets"] = 8 + chosen.integers(0, 1200, lines)
            packets["ip_octets"] = 20 + packets["udp_octets"]
            packets["length"] = packets["ip_octets"]
            times_ns = ((number * lines + np.arange(lines)) / rate * 1e9).astype(np.int64)
            packets["sec"], packets["nsec"] = np.divmod(times_ns, 1_000_000_000)
            file.write(packets.tobytes())


def main() -> None:
    """Writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--open_flows", type=int, default=200_000)
    options = parser.parse_args()
    write_traffic(options.file, options.rate, options.open_flows)


if __name__ == "__main__":
    main()
