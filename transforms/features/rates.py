"""Packets and octets per second over the flow's duration, and how much came down for what went up."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.features.flow_state import sides
from transforms.fields import Field

STATE = None


def _fields() -> Iterator[Field]:
    for name, sent in (("fwd", "sent by the initiator"), ("rev", "sent by the responder"), ("flow", "of both sides")):
        for total, what, unit in (
            ("packets", "Packets", "packets/s"),
            ("payload_octets", "Octets of transport payload", "octets/s"),
            ("ip_octets", "Octets of IP packets", "octets/s"),
        ):
            doc = f"{what} {sent} per second of the flow; null for a flow that took no time."
            yield Field(f"{name}_{total}_per_s", pa.float64(), unit, doc)
    yield Field(
        "down_up_ratio",
        pa.float64(),
        "",
        "Packets of the responder for each of the initiator; null without the latter.",
    )


FIELDS = tuple(_fields())


def features(states: None, flows: np.ndarray) -> Iterator[tuple[str, np.ma.MaskedArray | None]]:
    """The columns of finished flows; null where the divisor is 0."""
    duration_ns = flows["last_ns"] - flows["first_ns"]
    instant = duration_ns == 0
    known = not instant.all()
    seconds = np.where(instant, 1, duration_ns) / 1e9
    (_, fwd), (_, rev) = sides(flows)
    for name in ("fwd", "rev", "flow"):
        for total in ("packets", "payload_octets", "ip_octets"):
            amount = fwd[total] + rev[total] if name == "flow" else flows[name][total]
            yield f"{name}_{total}_per_s", np.ma.MaskedArray(amount / seconds, instant) if known else None
    up = fwd["packets"]
    yield "down_up_ratio", np.ma.MaskedArray(rev["packets"] / np.maximum(up, 1), up == 0)
