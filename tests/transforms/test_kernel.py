"""How kernels are compiled: parts within kernels, and what the cache keeps of both."""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numba
import numpy as np
import pytest

from transforms.fold import fold
from transforms.records import PACKET, PacketBatch, Stream
from transforms.settings import FlowSettings

MODULE = """
from transforms.kernel import kernel, kernel_part


@kernel_part
def twice(number):
    return 2 * number


@kernel_part
def four_times(number):
    return twice(twice(number))


@kernel
def five_times(number):
    return four_times(number) + number
"""

RUN = "import arithmetic; print(arithmetic.five_times(3), *arithmetic.five_times.stats.cache_hits.values())"


@pytest.fixture
def module(tmp_path):
    """A module with a kernel of nested parts."""
    path = tmp_path / "arithmetic.py"
    path.write_text(MODULE)
    spec = spec_from_file_location("arithmetic", path)
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_kernels_call_parts_of_parts(module):
    """A part is linked into each kernel, whole numbers and fractions alike."""
    assert (module.five_times(3), module.five_times(0.5)) == (15, 2.5)


def test_python_does_not_call_parts(module):
    """A part has no entry point: a call from Python is an exception, not a crash."""
    with pytest.raises((TypeError, ValueError)):
        module.four_times(3)


def test_another_process_finds_a_kernel_with_its_parts(module, tmp_path):
    """What is kept of a kernel needs no compiled part."""
    paths = [str(tmp_path), str(Path(__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True) for _ in range(2)]
    assert [run.stdout.split() for run in runs] == [[b"15"], [b"15", b"1"]]


def test_parts_are_not_made_machine_code_by_themselves(module):
    """That is what they are for: the engine knows the kernel's function and not the part's own library."""
    module.five_times(3)
    engine = numba.core.registry.cpu_target.target_context.codegen()._engine
    part = next(iter(module.twice.overloads.values()))
    kernel = next(iter(module.five_times.overloads.values()))
    assert engine.is_symbol_defined(kernel.fndesc.llvm_cpython_wrapper_name)
    assert not engine.is_symbol_defined(part.fndesc.llvm_cpython_wrapper_name)


def test_packets_that_may_be_written_need_no_second_fold():
    """The fold takes seconds to compile: it has one form for all packets, wherever they come from."""
    settings = FlowSettings()
    table = settings.table(settings.columns(), "local")
    shared = np.zeros(2, PACKET)
    shared.flags.writeable = False
    table.add(PacketBatch(Stream("local"), 0, 0, shared))
    list(table.advance(1))
    forms = len(fold.signatures)
    own = np.zeros(2, PACKET)
    own["time_ns"] = 1
    table.add(PacketBatch(Stream("local"), 1, 0, own))
    list(table.advance(2))
    assert (len(fold.signatures), table.counts["packets_in_flows"]) == (forms, 4)
