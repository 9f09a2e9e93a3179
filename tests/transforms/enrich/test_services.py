"""Names of services by protocol and port."""

import numpy as np
import pytest

from transforms.enrich.services import services
from transforms.records import ICMP, SCTP, TCP, UDP, UDP_LITE


@pytest.mark.parametrize(
    ("protocol", "src_port", "dst_port", "name"),
    [
        (TCP, 50_000, 443, "https"),
        (TCP, 50_000, 22, "ssh"),
        (UDP, 50_000, 53, "domain"),
        (UDP_LITE, 50_000, 53, "domain"),
        (SCTP, 50_000, 179, "bgp"),
        (UDP, 53, 50_001, "domain"),
        (TCP, 443, 22, "ssh"),
        (TCP, 3306, 50_001, None),
        (TCP, 50_000, 50_001, None),
        (ICMP, 8, 0, None),
        (ICMP, 22, 80, None),
        (0, 0, 0, None),
        (255, 65_535, 65_535, None),
    ],
)
def test_the_responder_s_port_names_the_service(protocol, src_port, dst_port, name):
    """The initiator's only if it is a system port and the responder's has none; without ports there is none."""
    columns = (np.array([value], type_) for value, type_ in ((protocol, "u1"), (src_port, "u2"), (dst_port, "u2")))
    assert services(*columns).to_pylist() == [name]
