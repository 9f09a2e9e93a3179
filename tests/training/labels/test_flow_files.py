"""Files of flows are labelled piece by piece, however they were written."""

import numpy as np
import pyarrow as pa
from label_testing import batch, flow
from pyarrow import parquet

from training.labels import flow_files
from training.labels.labeller import Labeller, LabelSettings

ROWS, OCTETS = 30_000, 1000


def test_memory_does_not_follow_row_groups(tmp_path, monkeypatch):
    """Others write row groups larger than memory; here one of 30 MB that nothing makes smaller."""
    noise = np.random.default_rng(1).integers(0, 256, ROWS * OCTETS, np.uint8)
    flows = pa.Table.from_batches([batch(flow())]).take(np.zeros(ROWS, np.int64))
    flows = flows.append_column("noise", pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(OCTETS), ROWS, [None, pa.py_buffer(noise)]))  # fmt: skip
    parquet.write_table(flows, tmp_path / "flows.parquet", row_group_size=ROWS, use_dictionary=["src_ip"])
    del flows
    monkeypatch.setattr(flow_files, "ROWS_AT_ONCE", 1000)
    before, held = pa.total_allocated_bytes(), []
    labeller = Labeller([], LabelSettings())
    rows = flow_files.label_files(
        tmp_path / "flows.parquet",
        tmp_path / "labelled",
        labeller,
        lambda _: held.append(pa.total_allocated_bytes() - before),
    )
    assert rows == ROWS
    assert max(held) < ROWS * OCTETS / 3
