"""Answers of a model, and the labels that come back for them: which belongs to which, and which answers were wrong."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.drift.decay import JUDGED
from transforms.model.folder import Model

ANSWERS = pa.schema(
    [
        ("flow_id", pa.binary(16)),
        ("flow_end_ns", pa.int64()),
        ("predicted_class", pa.string()),
        ("model_id", pa.string()),
    ]
)
"""What is remembered of a scored flow until its label comes."""

LABELS = pa.schema([("flow_id", pa.binary(16)), ("label", pa.string())])
"""What comes back."""


class Matched(NamedTuple):
    """Answers and labels, brought together.

    Attributes:
        known: Answers whose label is known, with the column `label`.
        answers: Those that wait.
        labels: Labels of other flows.
    """

    known: pa.RecordBatch
    answers: pa.RecordBatch
    labels: pa.RecordBatch


def match(answers: pa.RecordBatch, labels: pa.RecordBatch) -> Matched:
    """Brings answers and labels of one flow together; of several labels of a flow the last one counts."""
    newest_first = labels.take(pa.array(np.arange(len(labels) - 1, -1, -1)))
    at = pc.index_in(answers["flow_id"], value_set=newest_first["flow_id"])
    found = at.is_valid()
    known = answers.filter(found)
    known = known.append_column("label", newest_first["label"].take(at.drop_null()))
    used = pc.is_in(labels["flow_id"], value_set=known["flow_id"])
    return Matched(known, answers.filter(pc.invert(found)), labels.filter(pc.invert(used)))


def judge(known: pa.RecordBatch, model: Model) -> np.ndarray:
    """Which answers of a model were wrong.

    A binary model is wrong if one of label and answer is benign and the other is not; one of several classes, if they
    differ. Case and outer blanks make no difference. An empty label says nothing and is left out.

    Args:
        known: As `Matched.known`, all of this model.
        model: It.

    Returns:
        `JUDGED[n]`, in the order of `known`.
    """
    labels, answers = _plain(known["label"]), _plain(known["predicted_class"])
    if model.task == "binary":
        benign = model.benign.strip().lower()
        wrong = pc.xor(pc.equal(labels, benign), pc.equal(answers, benign))
    else:
        wrong = pc.not_equal(labels, answers)
    says = pc.and_kleene(pc.not_equal(labels, ""), wrong.is_valid())
    says = pc.fill_null(says, False)
    judged = np.empty(pc.sum(says).as_py() or 0, JUDGED)
    judged["wrong"] = wrong.filter(says).to_numpy(zero_copy_only=False)
    judged["end_ns"] = known["flow_end_ns"].filter(says).to_numpy(zero_copy_only=False)
    ids = id_halves(known["flow_id"].filter(says))
    judged["id_high"], judged["id_low"] = ids[:, 0], ids[:, 1]
    return judged


def id_halves(ids: pa.FixedSizeBinaryArray) -> np.ndarray:
    """Flow ids, none of them null, as numbers in the order of their octets; `uint64[n, 2]`."""
    octets = np.frombuffer(ids.buffers()[1] or b"", np.uint8)[ids.offset * 16 : (ids.offset + len(ids)) * 16]
    return octets.view(">u8").astype(np.uint64).reshape(-1, 2)


def _plain(texts: pa.StringArray) -> pa.StringArray:
    return pc.utf8_lower(pc.utf8_trim_whitespace(texts))
