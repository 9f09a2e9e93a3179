"""What tests of commands share: kernels compiled before the first of them, and a capture."""

from pathlib import Path

import pytest

from pipelines.first_run import compile_kernels
from sources.generate.capture import GenerateSettings, generate


@pytest.fixture(scope="session")
def compiled() -> None:
    """Commands say nothing of compiling, and take their usual time."""
    compile_kernels((), quiet=True)


@pytest.fixture(scope="session")
def traffic(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of 3,000 packets; beside it the labels of its flows, `traffic.csv`."""
    folder = tmp_path_factory.mktemp("traffic")
    path = folder / "traffic.pcap"
    generate(GenerateSettings(output=str(path), packets=3000, labels=str(folder / "traffic.csv")))
    return path
