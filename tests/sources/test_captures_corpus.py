"""Every capture of the corpus: as many packets as Wireshark finds, and each of them accounted for."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from capture_files import read

CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS", Path(__file__).parents[3] / "shared" / "data"))

EXPLAINED = {
    # Custom blocks, which Wireshark 4.0 shows as if they were packets.
    "pcapng-generator/output_be__advanced__test102.pcapng": 5,
    "pcapng-generator/output_le__advanced__test102.pcapng": 5,
    "pcapng-generator/output_be__basic__test017.pcapng": 0,
    "pcapng-generator/output_be__basic__test018.pcapng": 4,
    "pcapng-generator/output_le__basic__test018.pcapng": 4,
    "pcapng-generator/output_be__difficult__test202.pcapng": 8,
    "pcapng-generator/output_le__difficult__test202.pcapng": 8,
    # Link types that Wireshark 4.0 does not know, where it refuses the whole file.
    "tcpdump/brcm-tag-prepend.pcap": 15,
    "tcpdump/dsa-high-vid.pcap": 4,
    "tcpdump/edsa.pcap": 10,
    "tcpdump/frf16_magic_ie-oobr.pcap": 1,
    "tcpdump/hoobr_juniper3.pcap": 1,
    "tcpdump/juniper_es_oobr.pcap": 1,
    "tcpdump/juniper_monitor_invalid_cookie_length.pcap": 1,
    "tcpdump/kday6.pcap": 1,
    # The second record claims 1.4 GB; Wireshark guesses that records have headers of 24 octets, and finds another.
    "suricata-verify/bug-6875-01__fuzz.pcap": 1,
}

DAMAGED = {
    "dpkt/truncated_dns_2.pcap",
    "ndpi/fuzz-2021-10-13.pcap",
    "scapy/bad_rsn_parsing_overrides_ssid.pcap",
    "suricata-verify/bug-6875-01__fuzz.pcap",
    "suricata-verify/http-mime-truncated__input.pcap",
    "suricata-verify/smtp-to-comma__10.7.29.101_49898-178.63.41.150_25.pcap",
}


def captures():
    table = CORPUS / "captures.csv"
    if not table.exists():
        return []
    with table.open(newline="") as lines:
        return [(row["file"], int(row["packets"])) for row in csv.DictReader(lines)]


@pytest.mark.corpus
@pytest.mark.skipif(not captures(), reason="the corpus is not here")
def test_every_capture_is_read_whole():
    """Packets read = rows + rejects, in order of time; one line for exactly those that break off."""
    for file, packets_in_wireshark in captures():
        name = file.removeprefix("captures/")
        packets, report = read(CORPUS / file)
        assert report.packets_read == EXPLAINED.get(name, packets_in_wireshark), name
        assert len(packets) + sum(report.rejects.values()) == report.packets_read, name
        assert (np.diff(packets["time_ns"]) >= 0).all(), name
        assert len(report.damage) == (name in DAMAGED), (name, report.damage)
