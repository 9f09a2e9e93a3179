"""Small labelled tables for tests of training."""

from pathlib import Path

import numpy as np

from training.tables import Table

SHIFT = {"BENIGN": 0.0, "DDoS": 4.0, "Bot": -4.0}
HEADER = "Flow Duration,Tot Fwd Pkts,Fwd Pkt Len Mean,Flow IAT Std,Dst Port,Label"


def cic_table(
    path: Path, rows: int, classes: tuple[str, ...] = ("BENIGN", "DDoS"), seed: int = 1, moved: float = 0
) -> Path:
    """A CSV file in CSE-CIC-IDS2018's spelling, whose classes lie apart; `moved` shifts all of them."""
    random = np.random.default_rng(seed)
    labels = random.choice(len(classes), rows)
    at = np.array([SHIFT[name] for name in classes])[labels] + moved
    columns = [
        (1000 + 100 * (at + random.normal(size=rows))).astype(int),
        (20 + at + random.normal(size=rows)).astype(int),
        100 + 10 * (at + random.normal(size=rows)),
        abs(random.normal(size=rows)),
        random.choice([22, 80, 443], rows),
    ]
    lines = [",".join(map(str, (*values, classes[label]))) for *values, label in zip(*columns, labels, strict=True)]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def rows_of(labels: list[int] | np.ndarray, **columns: np.ndarray) -> Table:
    """A table with these columns and as many classes as there are labels."""
    labels = np.asarray(labels, np.int32)
    names = tuple("abcdefgh"[: labels.max() + 1])
    return Table({name: np.asarray(values, np.float32) for name, values in columns.items()}, labels, names)
