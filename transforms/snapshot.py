"""Named arrays and settings as bytes: a compact, versioned form for what must survive a restart."""

import json
import struct
from typing import Any

import numpy as np

from transforms.records import InputError

_MAGIC = b"FLOWBEAM"
_VERSION = 1


def pack(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """A header of JSON, then the arrays' octets by name; `meta` must be JSON."""
    ordered = dict(sorted(arrays.items()))
    described = {name: [len(rows), rows.dtype.itemsize] for name, rows in ordered.items()}
    header = json.dumps({"meta": meta, "arrays": described}, sort_keys=True).encode()
    rows_octets = (rows.tobytes() for rows in ordered.values())
    return b"".join([_MAGIC, struct.pack("<HI", _VERSION, len(header)), header, *rows_octets])


def unpack(octets: bytes, dtypes: dict[str, np.dtype]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `pack`; arrays are writable copies.

    Raises:
        InputError: The bytes are no snapshot, or one of another version or layout.
    """
    if octets[:8] != _MAGIC or len(octets) < 14:
        raise InputError("the bytes are no flow table snapshot")
    version, length = struct.unpack_from("<HI", octets, 8)
    if version != _VERSION:
        raise InputError(f"flow table snapshot of version {version}; this release reads version {_VERSION}")
    if len(octets) < 14 + length:
        raise InputError("flow table snapshot: it breaks off in its header")
    header = json.loads(octets[14 : 14 + length])
    at, arrays = 14 + length, {}
    for name, (rows, itemsize) in header["arrays"].items():
        if dtypes[name].itemsize != itemsize:
            raise InputError(f"flow table snapshot: {name} has rows of {itemsize} octets, here {dtypes[name].itemsize}")
        if len(octets) < at + rows * itemsize:
            raise InputError(f"flow table snapshot: it breaks off in {name}")
        arrays[name] = np.frombuffer(octets, dtypes[name], rows, at).copy()
        at += rows * itemsize
    return header["meta"], arrays
