"""What a model learned from one kind of traffic it finds in another, that it has not seen, while that streams."""

import pytest
from verdict_testing import alerted, generated, misjudged, streamed

from pipelines import flows, label, train
from sources.generate.sessions import NAMES

pytestmark = pytest.mark.slow

SCORED = 120_000
"""Packets; as many of a campus have 1,400 benign flows to learn from, too few to find a threshold for one in 1,000."""

ATTACKS = {name.name for name in NAMES if name.label != "benign"}


@pytest.mark.parametrize(("known", "packets", "other"), [("office", 240_000, "campus"), ("campus", 360_000, "office")])
def test_attacks_are_found_in_traffic_of_another_profile(known, packets, other, prism, tmp_path):
    """By the commands, with their defaults: recall of each attack 0.95 or more, at most one false alarm in 1,000.

    Of sixteen pairs of seeds, one missed it, by a single flow of the rarest attack (docs/models.md).
    """
    traffic, truth = generated(tmp_path, known, 31, packets)
    made, labelled, model = (str(tmp_path / name) for name in ("made", "labelled", "model"))
    assert flows.main(["--runner=DirectRunner", "--input", str(traffic), "--output", f"parquet:{made}", "--quiet"]) == 0
    assert label.main(["--flows", made, "--attacks", str(truth), "--output", labelled, "--quiet"]) == 0
    assert train.main(["--flows", labelled, "--max_fpr", "0.001", "--brief", "--output", model, "--quiet"]) == 0
    traffic, truth = generated(tmp_path, other, 32, SCORED)
    found = alerted(streamed(tmp_path, prism, traffic, tmp_path / "model"), truth)
    assert found.keys() == ATTACKS | {"benign"}
    assert not misjudged(found), found
