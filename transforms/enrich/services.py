"""Names of services: what IANA has registered for a flow's protocol and port."""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from transforms.fields import Field
from transforms.records import SCTP, TCP, UDP, UDP_LITE

FIELD = Field(
    "service",
    pa.string(),
    "",
    "Service registered at IANA for the responder's port; for the initiator's, if that alone has one below 1024.",
    "",
    "network.application",
)

_TABLE = Path(__file__).parent / "services.csv"
_KINDS = ("tcp", "udp", "sctp")
_KIND_OF = np.zeros(256, np.uint8)
_KIND_OF[[TCP, UDP, UDP_LITE, SCTP]] = 1, 2, 2, 3  # from 1; 0 has no names
_PORTS = 1 << 16
_SYSTEM_PORTS = 1024


@cache
def _table() -> tuple[np.ndarray, pa.StringArray]:
    """For each kind and port the row of a name, 0 without; and the names."""
    comments = sum(line.startswith("#") for line in _TABLE.read_text(encoding="ascii").splitlines())
    types = {"port": pa.int32(), **dict.fromkeys(_KINDS, pa.string())}
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    table = csv.read_csv(_TABLE, csv.ReadOptions(skip_rows=comments), convert_options=convert)
    names = pa.array(sorted({name for kind in _KINDS for name in table[kind].drop_null().to_pylist()}))
    rows = np.zeros((1 + len(_KINDS), _PORTS), np.uint16)
    for number, kind in enumerate(_KINDS, 1):
        found = pc.index_in(table[kind], value_set=names).combine_chunks()
        rows[number, table["port"].to_numpy()] = found.fill_null(-1).to_numpy() + 1
    return rows, pa.concat_arrays([pa.array([None], pa.string()), names])


def services(protocol: np.ndarray, src_port: np.ndarray, dst_port: np.ndarray) -> pa.StringArray:
    """The column `service`; null for protocols without ports, and for ports without a name."""
    rows, names = _table()
    kind = _KIND_OF[protocol]
    of_initiator = np.where(src_port < _SYSTEM_PORTS, rows[kind, src_port], 0)
    found = rows[kind, dst_port]
    return names.take(pa.array(np.where(found == 0, of_initiator, found)))
