"""What an attack is, and the three ways to say which flows are its own: rules, events, and truth by flow."""

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from transforms.enrich.address_numbers import Networks, network_numbers

PAYLOAD, ANSWER, NOTHING = "payload", "answer", "nothing"
NEEDS = (PAYLOAD, ANSWER, NOTHING)
"""What an attack must have sent to have happened: payload of the side that attacks; of the other side, too; packets."""

FORWARD, REVERSE, EITHER = np.int8(0), np.int8(1), np.int8(2)
"""The side of a flow that attacks: its initiator, its responder, or it is not known which."""

_WITHOUT_PAYLOAD = re.compile(r"scan|sweep|recon|probe|nmap|smurf|(syn|ack|rst|fin|tcp|icmp|ping)[ _-]?flood", re.I)


class Attack(NamedTuple):
    """One row of the table of what matched what.

    Attributes:
        name: The label of its flows.
        category: What kind of attack it is; empty if nothing tells.
        source: File and line that tell of it.
        needs: One of `NEEDS`.
        is_benign: It is no attack: truth by flow names benign flows, too.
        events: How many alerts or notices tell of it; 0 of a rule.
    """

    name: str
    category: str
    source: str
    needs: str = NOTHING
    is_benign: bool = False
    events: int = 0


class FlowColumns(NamedTuple):
    """What is compared of a batch of flows.

    Attributes:
        flows: The batch.
        src: Initiators' addresses.
        dst: Responders' addresses.
        src_port: `int64[n]`, as all that follow.
        dst_port: Responder's.
        protocol: IANA number.
        first_ns: First packet of part 0.
        start_ns: First packet of the part.
        end_ns: Last packet of it.
    """

    flows: pa.RecordBatch
    src: Networks
    dst: Networks
    src_port: np.ndarray
    dst_port: np.ndarray
    protocol: np.ndarray
    first_ns: np.ndarray
    start_ns: np.ndarray
    end_ns: np.ndarray

    @classmethod
    def of(cls, flows: pa.RecordBatch) -> "FlowColumns":
        """Reads the columns of a batch."""
        numbers = ("src_port", "dst_port", "protocol", "flow_first_ns", "flow_start_ns", "flow_end_ns")
        src, dst = (network_numbers(flows[name].cast(pa.string())) for name in ("src_ip", "dst_ip"))
        return cls(flows, src, dst, *(flows[name].fill_null(0).to_numpy(False).astype(np.int64) for name in numbers))


class Claims(NamedTuple):
    """Flows of a batch that are said to be of attacks, by row, then by precedence.

    Attributes:
        rows: `int64[n]`, rows of the batch.
        attacks: `int64[n]`, indices of attacks; a lower one has precedence.
        sides: `int8[n]`, FORWARD, REVERSE or EITHER: who attacks.
    """

    rows: np.ndarray
    attacks: np.ndarray
    sides: np.ndarray


class Teller(Protocol):
    """Something that tells which flows are attacks.

    Attributes:
        attacks: What it tells of; claims count from 0 here.
        columns: Columns of flows that it reads, beside those of `FlowColumns`.
        names_every_flow: Flows that it does not name are unknown, not benign.
    """

    attacks: list[Attack]
    columns: tuple[str, ...]
    names_every_flow: bool

    def claims(self, flows: FlowColumns) -> Iterable[Claims]:
        """What it says of a batch, in order of precedence; each row once for an attack."""

    def unmatched_events(self) -> np.ndarray:
        """For each attack, events that matched no flow so far."""


def needs_of(name: str, category: str) -> str:
    """What an attack needs, if its row does not say: scans and floods below the transport's payload need none."""
    return NOTHING if _WITHOUT_PAYLOAD.search(f"{name} {category}") else PAYLOAD
