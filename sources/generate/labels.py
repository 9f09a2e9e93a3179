"""The truth about generated traffic: what each flow is, by flow id."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from pyarrow import csv

from sources.generate.sessions import NAMES
from transforms.addresses import address_texts
from transforms.identity import KEY, flow_ids

_SENSOR = "local"

LABELS = pa.schema(
    [
        ("flow_id", pa.string()),
        ("class", pa.string()),
        ("name", pa.string()),
        ("src_ip", pa.string()),
        ("src_port", pa.uint16()),
        ("dst_ip", pa.string()),
        ("dst_port", pa.uint16()),
        ("protocol", pa.uint8()),
        ("flow_first_ns", pa.int64()),
    ]
)
"""`flow_id` in hex; `class` is benign or the kind of attack, `name` what exactly."""

_CLASSES = pa.array([name.label for name in NAMES])
_NAMES = pa.array([name.name for name in NAMES])


def labels(segments: np.ndarray, sessions: np.ndarray, start_ns: int) -> pa.RecordBatch:
    """Labels of the sessions whose first packet is among `segments`, with ids as the default settings give them."""
    begun = segments[segments["first"] == 1]
    sessions = sessions[begun["session"]]
    keys = np.zeros(len(begun), KEY)
    for name in set(KEY.names or ()) & set(sessions.dtype.names or ()):
        keys[name] = sessions[name]
    keys["vni"] = -1
    keys["flow_first_ns"] = start_ns + begun["time_ns"]
    kinds = pa.array(sessions["name"])
    return pa.record_batch(
        [
            _hex(flow_ids(keys, _SENSOR)),
            _CLASSES.take(kinds),
            _NAMES.take(kinds),
            address_texts(keys["src_hi"], keys["src_lo"], keys["ip_version"]),
            keys["src_port"],
            address_texts(keys["dst_hi"], keys["dst_lo"], keys["ip_version"]),
            keys["dst_port"],
            keys["protocol"],
            keys["flow_first_ns"],
        ],
        schema=LABELS,
    )


@contextmanager
def label_writer(path: str) -> Iterator[csv.CSVWriter]:
    """A CSV file of `LABELS` with a header."""
    options = csv.WriteOptions(include_header=False, quoting_style="none")
    with open(path, "wb") as file:
        file.write(",".join(LABELS.names).encode() + b"\n")
        with csv.CSVWriter(file, LABELS, write_options=options) as writer:
            yield writer


def _hex(ids: np.ndarray) -> pa.StringArray:
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    texts = np.ascontiguousarray(digits[np.stack([ids >> 4, ids & 15], axis=-1)])
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * np.int32(32)
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(texts))
