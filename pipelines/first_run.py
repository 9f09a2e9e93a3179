"""Compiles the kernels before the first run of a version, those that read beside those that fold.

What is compiled is kept in the user's cache; a marker there says that it is done.
"""

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa

from sinks.command import say
from sources import captures
from transforms import flow_table
from transforms.features.registry import load_family
from transforms.kernel import cache_folder
from transforms.records import PACKET, TCP, TRANSPORT_WHOLE, PacketBatch, Stream
from transforms.settings import FlowSettings

_HEADERS = "080045000028000100004006f97d0a0000010a00000204d2005000000000000000005002200000000000"
_FRAME = bytes(12) + bytes.fromhex(_HEADERS)
_CAPTURE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + 2 * (
    struct.pack("<IIII", 0, 0, len(_FRAME), len(_FRAME)) + _FRAME
)

_DATABASE = bytes([0, 0, 1, 0, 0, 1])
"""The search tree of a MaxMind DB that knows nothing."""


def compile_kernels(feature_modules: Sequence[str], quiet: bool) -> None:
    """Makes sure that the kernels are compiled; says so where that takes time."""
    if is_compiled(feature_modules):
        return
    if not quiet:
        _announce()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parts = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines.first_run", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for arguments in (["read"], ["fold", *feature_modules])
    ]
    if not any([part.wait() for part in parts]):  # else they are compiled as they are needed, and errors show there
        _marker(feature_modules).touch()


def is_compiled(feature_modules: Sequence[str]) -> bool:
    """Whether the kernels are compiled."""
    return _marker(feature_modules).exists()


def _marker(feature_modules: Sequence[str]) -> Path:
    return cache_folder() / f"ready-{_installation(feature_modules)}"


def compile_enrichment(quiet: bool) -> None:
    """The same for those that look addresses up, in this process: files are checked with them before a job starts."""
    marker = cache_folder() / f"enrichment-{_installation(())}"
    if marker.exists():
        return
    if not quiet:
        _announce()
    _look_up()
    marker.touch()


@cache
def _announce() -> None:
    """Says so, once."""
    say("compiling kernels: once for each version, some 10 to 20 s")


def _installation(feature_modules: Sequence[str]) -> str:
    """A hash of what numba, which compares paths and times of files, takes for the same kernels."""
    tops = (Path(str(module.__file__)).parent for module in (captures, flow_table))
    own = (Path(str(load_family(module).__file__)) for module in feature_modules)
    hashed = hashlib.blake2b(repr((numba.__version__, sys.version)).encode(), digest_size=16)
    for file in sorted({*chain.from_iterable(top.rglob("*.py") for top in tops), *own}):
        hashed.update(repr((str(file), file.stat().st_mtime_ns, file.stat().st_size)).encode())
    return hashed.hexdigest()


def _read() -> None:
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(_CAPTURE)
        file.flush()
        report = captures.ReadReport()
        list(captures.read_packets(captures.SensorInput("local", (file.name,)), captures.ReadSettings(), report))


def _fold(feature_modules: Sequence[str]) -> None:
    settings = FlowSettings(feature_modules=tuple(feature_modules))
    packets = np.zeros(2, PACKET)
    packets["protocol"], packets["ip_version"], packets["transport"] = TCP, 4, TRANSPORT_WHOLE
    table = settings.table(settings.columns(), "local")
    table.add(PacketBatch(Stream("local"), 0, 0, packets))
    list(table.advance(1))
    list(table.finish(1 << 62))  # long after its last packet a flow ends by the clock


def _look_up() -> None:
    from transforms.enrich.address_numbers import network_numbers  # other jobs start sooner without
    from transforms.enrich.prefixes import Prefixes
    from transforms.enrich.search_tree import SearchTree

    hi, lo, length = network_numbers(pa.array(["10.0.0.0/8"]))
    Prefixes(hi, lo, length).find(hi, lo)
    tree = SearchTree(np.frombuffer(_DATABASE, np.uint8), nodes=1, record_bits=24, ip_version=6, data_octets=0)
    tree.find(hi, lo)
    tree.leaves(1)


if __name__ == "__main__":
    _read() if sys.argv[1] == "read" else _fold(sys.argv[2:])
