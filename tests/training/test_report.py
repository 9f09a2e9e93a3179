import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from training import charts, report_page
from training.markup import LONGEST_TEXT, named, tag
from training.metrics import Metrics, measure
from training.report import (
    DataFile,
    Judgement,
    Leak,
    LearningPoint,
    Part,
    Report,
    findings,
    has_collapsed,
    percent,
    write_report,
)
from transforms.records import InputError

CLASSES = ("BENIGN", "DoS", "PortScan", "Bot")
VOID = {"meta", "path", "use"}


def judged(
    accuracy: float, classes: tuple[str, ...] = CLASSES, rows: int = 2000, benign: str | None = "BENIGN"
) -> Metrics:
    """Figures of a model that is right so often; 7 of 10 rows are of the first class."""
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(rows) < 0.7, 0, rng.integers(0, len(classes), rows))
    answers = np.where(rng.random(rows) < accuracy, labels, (labels + 1) % len(classes))
    sure = rng.random(rows)[:, None] * 0.5 + 0.5
    probabilities = np.where(np.eye(len(classes), dtype=bool)[answers], sure, (1 - sure) / (len(classes) - 1))
    return measure(classes, labels, answers, probabilities, benign=benign, threshold=0.5)


def report(**changes: object) -> Report:
    """A report with everything in it."""
    metrics = judged(0.99)
    whole = Report(
        model="ids-0123456789ab",
        task="multiclass",
        split="time:0.67",
        has_times=True,
        files=(DataFile("flows", 4000), DataFile("more.csv", 2000)),
        tested=Part(2000, {"BENIGN": 1400, "DoS": 200}, "2017-07-05T10:00:00Z", "2017-07-05T12:00:00Z"),
        metrics=metrics,
        trained=Part(4000, {"BENIGN": 3000, "Bot": 1000}, "2017-07-04T10:00:00Z", "2017-07-05T10:00:00Z"),
        feature_set="cic@1",
        features=("Flow Duration", "Total Fwd Packet"),
        threshold=0.5,
        other_splits=(Judgement("random:0.2", judged(0.998)),),
        before=Judgement("ids-ba9876543210", judged(0.95)),
        importance=(("Flow Duration", 0.25), ("Total Fwd Packet", 0.05)),
        importance_means="loss of accuracy when the column is shuffled",
        learning_curve=(LearningPoint(1000, 0.9, 0.8), LearningPoint(4000, 0.99, 0.97)),
        leaks=(Leak("Src IP", "an address"), Leak("Dst Port", "a port", allowed=True)),
        cleaning={"infinities, taken as missing": 12},
        selection="permutation, 2 of 77",
        settings={"trees": "200"},
        warnings=("3 rows had no label and were left out.",),
        fingerprint="ab12",
        created="2026-01-05T08:00:00Z",
        flowbeam="0.1.0",
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Holds every element to be closed in order, and keeps what a reader and a browser would take from the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        for key, value in attributes:
            assert not key.startswith("on"), key
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href", "xlink:href", "srcset", "data", "action") and not value.startswith("#"):
                self.fetched.append(value)
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.handle_starttag(name, attributes)
        if name not in VOID:
            self.open.pop()

    def handle_endtag(self, name):
        if name not in VOID:
            assert self.open.pop() == name

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_tells_everything_and_needs_nothing():
    page = report_page.page(report())
    read = Page(page)
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "Data", "Classes", "Confusion", "Detection at fixed false-alarm rates", "Curves", "Calibration",
        "Splits compared", "Before and after", "Features", "Learning curve", "Leak guard", "How it was made",
    ]  # fmt: skip
    assert read.fetched == []
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert read.tags.count("svg") == 5
    assert len(set(read.ids)) == len(read.ids)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"|http-equiv', "", page)


def test_the_page_is_the_same_every_time():
    assert report_page.page(report()) == report_page.page(report())


def test_data_and_split_stand_first():
    read = Page(report_page.page(report()))
    lines = [line for line in read.texts if line.strip()]
    start = lines.index("Data: flows, more.csv; 4,000 rows to train, 2,000 to test.")
    assert lines[start + 1].startswith("Split in time: trained on the first 67 % of the rows")
    assert start < lines.index("accuracy")


HOSTILE = (
    "<script>alert(1)</script>", "\"><svg onload=alert(1)>", "$\\frac{", "_hidden", "a\0b\x1b[2J", "\u202egnp.exe",
    "x" * 100_000, "", "{{7*7}}", "</style><b>", "class 'q' & co", "\ud800",
)  # fmt: skip


def test_names_from_the_data_are_text():
    """Labels, columns and file names may be made to do harm."""
    names = ("BENIGN", *HOSTILE)
    metrics = judged(0.9, names)
    hostile = report(
        model=HOSTILE[0],
        metrics=metrics,
        other_splits=(Judgement(HOSTILE[1], metrics),),
        files=tuple(DataFile(name, 1) for name in HOSTILE),
        tested=Part(2000, dict.fromkeys(names, 1), HOSTILE[0], HOSTILE[1]),
        features=HOSTILE,
        importance=tuple((name, 0.5) for name in HOSTILE),
        leaks=tuple(Leak(name, name) for name in HOSTILE),
        settings={name: name for name in HOSTILE},
        cleaning=dict.fromkeys(HOSTILE, 1),
        warnings=HOSTILE,
    )
    page = report_page.page(hostile)
    page.encode()
    read = Page(page)
    assert not {"script", "b"} & set(read.tags)
    assert read.tags.count("svg") == 5
    assert "\0" not in page
    assert "\x1b" not in page
    assert "<script>alert(1)</script>" in read.texts
    assert len(page) < 1_500_000


def test_a_long_name_is_cut():
    assert named("x" * 1000) == tag("bdi", "x" * (LONGEST_TEXT - 1) + "…")


@pytest.mark.parametrize("classes", [2, 3, 60, 1000])
def test_any_number_of_classes_makes_a_page(classes):
    names = ("BENIGN", *(f"class {i}" for i in range(1, classes)))
    page = report_page.page(report(metrics=judged(0.9, names, rows=3000)))
    assert len(page) < 1_500_000
    assert ("matrix" in page[page.index("<body>") :]) == (classes <= report_page.MOST_IN_MATRIX)


def test_what_is_unknown_is_left_out():
    """Figures alone, without probabilities, training data or anything else."""
    labels = np.zeros(3, int)
    bare = Report("m", "binary", "other", False, (), Part(3, {}), measure(["a"], labels, labels))
    page = report_page.page(bare)
    Page(page)
    for title in ("Curves", "Calibration", "Detection", "Features", "Learning", "Splits", "Before"):
        assert f"<h2>{title}" not in page
    assert "Tested on data that the model was not trained on." in page


# --- what the first lines say --------------------------------------------------------------------------------------


def told(made: Report) -> list[str]:
    return [one.text for one in findings(made) if one.is_warning]


def test_a_collapse_in_time_is_told_first():
    """0.75 right, where one answer for all gives 0.77: no split at random hides that."""
    metrics = judged(0.75)
    collapsed = report(metrics=metrics, warnings=(), leaks=())
    assert has_collapsed(metrics)
    first, second = told(collapsed)
    assert first == (
        f"On what came later the model collapses: accuracy {metrics.accuracy:.4f}, where always answering BENIGN gives"
        f" {metrics.majority_share:.4f}."
    )
    assert second.startswith("How the data is split makes a difference: ")
    page = report_page.page(collapsed)
    assert page.index("the model collapses") < page.index("macro F1</div>")


def test_a_random_split_tells_of_the_collapse_in_time():
    made = report(split="random:0.2", other_splits=(Judgement("time:0.67", judged(0.75)),), warnings=(), leaks=())
    flatters, collapses, _ = told(made)
    assert flatters.startswith("A random split of data that has times flatters")
    assert collapses.startswith("On what came later the model collapses")


def test_a_random_split_without_times_is_no_warning():
    assert told(report(split="random:0.2", has_times=False, other_splits=(), warnings=(), leaks=())) == []


def test_a_good_model_has_no_warning():
    made = report(other_splits=(Judgement("random:0.2", judged(0.99)),), warnings=(), leaks=())
    assert told(made) == []
    assert "How the data is split makes little difference" in "".join(one.text for one in findings(made))


def test_leaks_that_were_allowed_and_warnings_are_told():
    assert told(report(other_splits=())) == ["Dst Port was kept: a port.", "3 rows had no label and were left out."]


@pytest.mark.parametrize(
    ("split", "meaning"),
    [
        ("random:0.2", "Split at random: 20 % of the rows were held back for the test."),
        ("group:sensor", "Split by sensor: no value of that column is on both sides."),
        ("other", "Tested on data that the model was not trained on."),
    ],
)
def test_the_split_is_stated(split, meaning):
    assert findings(report(split=split))[1].text == meaning


@pytest.mark.parametrize(
    ("part", "shown"), [(0.67, "67 %"), (0.99984, "99.98 %"), (0.9999999, "99.99999 %"), (1, "100 %"), (0, "0 %")]
)
def test_nearly_all_is_not_all(part, shown):
    assert percent(part) == shown


def test_one_class_alone_has_not_collapsed():
    """Nothing can be gained over one answer that is always right."""
    assert not has_collapsed(measure(["a"], np.zeros(3, int), np.zeros(3, int)))


# --- pictures and file ---------------------------------------------------------------------------------------------


def test_pictures_are_coloured_by_the_page():
    """No colour of their own, so that they are legible in light and dark; well-formed, without fonts and styles."""
    metrics = judged(0.9)
    assert metrics.alarms is not None
    picture = charts.roc([metrics.alarms.roc])
    ET.fromstring(picture)
    assert re.findall("#[0-9a-f]{6}", picture) == []
    assert "var(--series-0)" in picture
    assert "var(--ink)" in picture
    assert "font-family" not in picture
    assert "<style" not in picture


def test_the_page_is_written_whole_or_not(tmp_path):
    path = tmp_path / "report.html"
    write_report(report(), path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: cannot be written: Is a directory"):
        write_report(report(), tmp_path / "folder")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "report.html"]


def test_without_the_extra_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(InputError, match=re.escape("the report needs matplotlib; pip install 'flowbeam[train]'")):
        write_report(report(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
