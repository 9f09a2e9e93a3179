"""Run where TensorFlow is: forests trained by TensorFlow Decision Forests, and ours as SavedModels, with what they say.

    python tests/tensorflow_models.py FOLDER

Needs FOLDER/flows.npz (columns) and FOLDER/exported (a model as a SavedModel). Makes FOLDER/trained (a SavedModel by
TensorFlow Decision Forests), and FOLDER/said.npz: what TensorFlow says of the flows with both.
"""

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # the one that TensorFlow Decision Forests builds on
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf
import tensorflow_decision_forests as tfdf
import tf_keras


def main(folder: Path) -> None:
    """Makes all of it."""
    columns = dict(np.load(folder / "flows.npz"))
    labels = columns.pop("label")
    flows = tf.data.Dataset.from_tensor_slices((columns, labels)).batch(100)
    trained = tfdf.keras.GradientBoostedTreesModel(num_trees=4, max_depth=4, verbose=0)
    trained.fit(flows, verbose=0)
    trained.save(str(folder / "trained"))
    exported = tf_keras.models.load_model(folder / "exported")
    np.savez(
        folder / "said.npz", trained=trained.predict(flows, verbose=0), exported=exported.predict(columns, verbose=0)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
