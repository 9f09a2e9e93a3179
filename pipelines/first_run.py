"""Compiles the kernels before the first run of a version: reading beside folding, as one process would do one after the other.

What is compiled is kept in the user's cache; a marker there says that it is done.
"""

import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.terminal import say
from sources import captures
from transforms import flow_table
from transforms.features.registry import load_family
from transforms.kernel import cache_folder, digest
from transforms.records import TCP, TRANSPORT_WHOLE, PACKET, PacketBatch, Stream
from transforms.settings import FlowSettings

_FRAME = bytes(12) + bytes.fromhex("080045000028000100004006f97d0a0000010a00000204d2005000000000000000005002200000000000")
_CAPTURE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + 2 * (
    struct.pack("<IIII", 0, 0, len(_FRAME), len(_FRAME)) + _FRAME
)


def compile_kernels(feature_modules: Sequence[str], quiet: bool) -> None:
    """Makes sure that the kernels are compiled; says so where that takes time."""
    files = [Path(module.__file__) for module in (captures, flow_table, *map(load_family, feature_modules))]
    marker = cache_folder() / ("ready-" + "-".join(map(digest, files)))
    if marker.exists():
        return
    if not quiet:
        say("compiling kernels: once for each version, some 10 to 20 s")
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
        marker.touch()


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
    list(table.finish(0))


if __name__ == "__main__":
    _read() if sys.argv[1] == "read" else _fold(sys.argv[2:])
