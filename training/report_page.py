"""The report as one HTML page: no script, nothing fetched, light and dark as the reader's system has it."""

from collections.abc import Iterator, Sequence
from typing import Any

from training import charts
from training.markup import Markup, named, table, tag, together
from training.metrics import Curve, Detection, Metrics
from training.report import Report, findings, percent
from training.report_style import STYLE

MOST_IN_MATRIX = 25
"""Classes of a confusion matrix; of more, the most frequent mistakes are listed."""

MOST_LISTED = 100
"""Rows of any other table."""

MOST_BARS = 30
"""Features whose importance is drawn."""

_HEAD = Markup(
    '<meta charset="utf-8">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
)


def page(report: Report) -> str:
    """The whole page."""
    head = tag("head", _HEAD, tag("title", f"{report.model}: report"), tag("style", Markup(STYLE)))
    body = tag("body", tag("main", _opening(report), *_sections(report)))
    return f'<!doctype html>\n<html lang="en">{head}\n{body}</html>\n'


def _sections(report: Report) -> Iterator[Markup]:
    metrics = report.metrics
    yield _section("Data", "", *_data(report))
    yield _section("Classes", "", _classes(metrics))
    yield _section("Confusion", "Rows are what is true, columns what was answered.", _confusion(metrics))
    if metrics.alarms:
        lead = (
            f"An alarm is a score at or above the threshold. Of {metrics.alarms.benign_rows:,} benign rows so many may"
            " raise one; of all others so many are detected."
        )
        yield _section("Detection at fixed false-alarm rates", lead, _detection(metrics))
    yield _section("Curves", "", _curves(metrics))
    yield _section("Calibration", *_calibration(metrics))
    yield _section("Splits compared", "The same training, with the data split otherwise.", _splits(report))
    yield _section("Before and after", "Both models on the same rows.", _before(report))
    yield _section("Features", report.selection, _importance(report))
    yield _section("Learning curve", "Models of fewer rows, on the same test rows.", _learning(report))
    yield _section("Leak guard", *_leaks(report))
    yield _section("How it was made", "", *_made(report))


def _section(title: str, lead: str, *content: Markup) -> Markup:
    """A section; nothing if there is nothing to show."""
    if not any(content):
        return Markup()
    return tag("section", tag("h2", title), tag("p", lead) if lead else Markup(), *content)


# --- what stands first ---------------------------------------------------------------------------------------------


def _opening(report: Report) -> Markup:
    told = [tag("p", one.text, class_="warning" if one.is_warning else "finding") for one in findings(report)]
    return tag("header", tag("p", "flowbeam model report", class_="kind"), tag("h1", named(report.model)), *told,
               _tiles(report.metrics))  # fmt: skip


def _tiles(metrics: Metrics) -> Markup:
    counted = sum(one.f1 is not None for one in metrics.classes.values())
    always = together("always ", named(metrics.majority_class), f": {_four(metrics.majority_share)}")
    figures: list[tuple[str, str, Any]] = [
        ("accuracy", _four(metrics.accuracy), always),
        ("macro F1", _four(metrics.macro_f1), f"mean of {counted} classes"),
    ]
    if metrics.alarms:
        rate = metrics.alarms.at_rates[1].detection_rate
        figures.append(("detection", percent(rate), "at 1 false alarm in 1,000 benign rows"))
        figures.append(
            ("ROC AUC", _four(metrics.alarms.roc.area), together("all against ", named(metrics.alarms.benign)))
        )
    tiles = [
        tag("div", *(tag("div", one, class_=kind) for one, kind in zip(figure, _TILE, strict=True)), class_="tile")
        for figure in figures
    ]
    return tag("div", *tiles, class_="tiles")


_TILE = ("name", "value", "note")


# --- data ------------------------------------------------------------------------------------------------------------


def _data(report: Report) -> Iterator[Markup]:
    sides = [("train", report.trained), ("test", report.tested)]
    parts = [(name, part) for name, part in sides if part is not None]
    classes = list(dict.fromkeys(name for _, part in parts for name in part.classes))
    rows: list[tuple[Any, ...]] = [("rows", *(f"{part.rows:,}" for _, part in parts))]
    if any(part.first for _, part in parts):
        rows += [("first", *(part.first for _, part in parts)), ("last", *(part.last for _, part in parts))]
    rows += [(named(one), *(f"{part.classes.get(one, 0):,}" for _, part in parts)) for one in classes]
    yield _cut_table(("", *(name for name, _ in parts)), rows)
    yield _cut_table(("file", "rows"), [(named(file.name), f"{file.rows:,}") for file in report.files])
    if report.cleaning:
        yield _cut_table(("found in the tables", "times"), [(what, f"{n:,}") for what, n in report.cleaning.items()])


# --- figures ---------------------------------------------------------------------------------------------------------


def _classes(metrics: Metrics) -> Markup:
    head = ("class", "rows", "answered", "precision", "recall", "F1", "ROC AUC", "average precision")
    rows = [
        (
            named(name),
            f"{one.rows:,}",
            f"{one.predicted:,}",
            _four(one.precision),
            _four(one.recall),
            _four(one.f1),
            _four(one.roc and one.roc.area),
            _four(one.precision_recall and one.precision_recall.area),
        )
        for name, one in metrics.classes.items()
    ]
    return _cut_table(head, rows)


def _confusion(metrics: Metrics) -> Markup:
    names = list(metrics.classes)
    if len(names) > MOST_IN_MATRIX:
        wrong = [
            (count, true, answered)
            for true, row in enumerate(metrics.confusion)
            for answered, count in enumerate(row)
            if count and true != answered
        ]
        listed = [
            (named(names[true]), named(names[answered]), f"{count:,}")
            for count, true, answered in sorted(wrong, key=lambda one: (-one[0], *one[1:]))
        ]
        return _cut_table(("true class", "answered", "rows"), listed, "pairs")
    rows = []
    for i, (name, row) in enumerate(zip(names, metrics.confusion, strict=True)):
        total = sum(row)
        cells = [_share(count, total, i == j) for j, count in enumerate(row)]
        rows.append((named(name), *cells))
    return table(("true \\ answered", *map(named, names)), rows, "matrix")


def _share(count: int, total: int, is_right: bool) -> Markup:
    """A cell of the matrix, the more coloured the greater its part of the row."""
    part = count / total if total else 0.0
    shown = f"{max(4, round(100 * part)) if count else 0}%"
    return tag("span", f"{count:,}", class_="right" if is_right else "wrong", style=f"--part: {shown}")


def _detection(metrics: Metrics) -> Markup:
    assert metrics.alarms is not None
    columns: list[Detection] = list(metrics.alarms.at_rates)
    head = ["", *(percent(one.allowed) if one.allowed is not None else "" for one in columns)]
    if metrics.alarms.at_threshold:
        columns.append(metrics.alarms.at_threshold)
        head.append("the model's threshold")
    rows: list[tuple[Any, ...]] = [
        ("threshold", *("none" if one.threshold is None else f"{one.threshold:.6g}" for one in columns)),
        ("false alarms", *(f"{one.false_alarms:,} ({percent(one.false_alarm_rate)})" for one in columns)),
        ("detected", *(percent(one.detection_rate) for one in columns)),
    ]
    for name in columns[0].classes:
        rates = [one.classes[name] for one in columns]
        if rates[0] is not None:
            rows.append((named(name), *("" if rate is None else percent(rate) for rate in rates)))
    return _cut_table(tuple(head), rows)


def _curves(metrics: Metrics) -> Markup:
    by_rows = sorted(metrics.classes.items(), key=lambda one: -one[1].rows)
    shown = [(name, one.roc, one.precision_recall) for name, one in by_rows if one.roc and one.precision_recall]
    if metrics.alarms and len(shown) > 2:
        everything = f"all but {metrics.alarms.benign}"
        shown = [(everything, metrics.alarms.roc, metrics.alarms.precision_recall), *shown]
    elif metrics.alarms:
        shown = [one for one in shown if one[0] != metrics.alarms.benign]
    if not shown:
        return Markup()
    drawn = shown[: charts.SERIES]
    rocs: list[Curve] = [roc for _, roc, _ in drawn]
    key = _key([name for name, _, _ in drawn])
    rest = f"The {len(drawn)} most frequent of {len(shown)} are drawn." if len(drawn) < len(shown) else ""
    pictures = (
        charts.roc(rocs),
        charts.roc(rocs, is_logarithmic=True),
        charts.precision_recall([pr for *_, pr in drawn]),
    )
    return together(key, tag("p", rest) if rest else Markup(), _figures(pictures))


def _calibration(metrics: Metrics) -> tuple[str, Markup]:
    stated = metrics.calibration
    if stated is None:
        return "", Markup()
    lead = (
        f"How often what was stated with a probability came true, of the {stated.of}. Expected calibration error"
        f" {stated.error:.4f}, Brier score {stated.brier:.4f}."
    )
    rows = [
        (f"{one.lower:.1f} to {one.upper:.1f}", f"{one.rows:,}", _four(one.mean), _four(one.observed))
        for one in stated.bins
    ]
    listed = table(("probability", "rows", "mean stated", "came true"), rows)
    return lead, _figures((charts.calibration(stated), listed))


def _splits(report: Report) -> Markup:
    if not report.other_splits:
        return Markup()
    return _compared([(report.split, report.metrics), *report.other_splits])


def _before(report: Report) -> Markup:
    if report.before is None:
        return Markup()
    return _compared([report.before, (report.model, report.metrics)])


def _compared(judged: Sequence[tuple[str, Metrics]]) -> Markup:
    every = [metrics for _, metrics in judged]
    rows: list[tuple[Any, ...]] = [
        ("test rows", *(f"{one.rows:,}" for one in every)),
        ("accuracy", *(_four(one.accuracy) for one in every)),
        ("macro F1", *(_four(one.macro_f1) for one in every)),
        ("always the most frequent class", *(_four(one.majority_share) for one in every)),
    ]
    for name in dict.fromkeys(name for one in every for name in one.classes):
        f1 = [one.classes[name].f1 if name in one.classes else None for one in every]
        rows.append((together("F1 of ", named(name)), *map(_four, f1)))
    return _cut_table(("", *(named(name) for name, _ in judged)), rows)


# --- the model -------------------------------------------------------------------------------------------------------


def _importance(report: Report) -> Markup:
    if not report.importance:
        return Markup()
    drawn = report.importance[:MOST_BARS]
    most = max(abs(value) for _, value in drawn) or 1.0
    rows = [
        (named(name), tag("span", class_="bar", style=f"--part: {max(100 * value / most, 0):.1f}%"), f"{value:.4g}")
        for name, value in drawn
    ]
    rest = len(report.importance) - len(drawn)
    note = tag("p", f"And {rest} more of less importance.") if rest else Markup()
    return together(table(("feature", report.importance_means, "value"), rows, "bars"), note)


def _learning(report: Report) -> Markup:
    if len(report.learning_curve) < 2:
        return Markup()
    rows = [(f"{one.rows:,}", _four(one.accuracy), _four(one.macro_f1)) for one in report.learning_curve]
    listed = table(("rows", "accuracy", "macro F1"), rows)
    return together(_key(["accuracy", "macro F1"]), _figures((charts.learning(report.learning_curve), listed)))


def _leaks(report: Report) -> tuple[str, Markup]:
    if not report.leaks:
        return "No column was found that tells the class without describing traffic.", tag("p")
    rows = [
        (named(one.column), one.reason, "kept: --allow_leaks" if one.allowed else "left out") for one in report.leaks
    ]
    return "Columns that tell the class without describing traffic.", _cut_table(("column", "it is", ""), rows, "texts")


def _made(report: Report) -> Iterator[Markup]:
    facts = {
        "task": report.task,
        "feature set": report.feature_set or "columns of the table",
        "features": f"{len(report.features):,}",
        "threshold": "" if report.threshold is None else f"{report.threshold:.6g}",
        "split": report.split,
        **report.settings,
        "training data": report.fingerprint,
        "created": report.created,
        "flowbeam": report.flowbeam,
    }
    yield table(("setting", "value"), [(name, named(value)) for name, value in facts.items() if value], "texts")
    if report.features:
        listed = tag("p", *(together(named(name), ", " if name != report.features[-1] else "")
                            for name in report.features[:10 * MOST_LISTED]))  # fmt: skip
        yield tag("details", tag("summary", "Features in order"), listed)


# --- pieces ----------------------------------------------------------------------------------------------------------


def _cut_table(head: tuple[Any, ...], rows: list[tuple[Any, ...]], kind: str = "") -> Markup:
    """A table of at most so many rows, with a line about the rest."""
    rest = len(rows) - MOST_LISTED
    note = tag("p", f"And {rest:,} more.") if rest > 0 else Markup()
    return together(table(head, rows[:MOST_LISTED], kind), note) if rows else Markup()


def _key(names: Sequence[str]) -> Markup:
    """What the colours of curves stand for."""
    entries = [
        tag("li", tag("span", class_="swatch", style=f"background: var(--series-{i})"), named(name))
        for i, name in enumerate(names)
    ]
    return tag("ul", *entries, class_="key")


def _figures(pictures: Sequence[Markup]) -> Markup:
    return tag("div", *(tag("figure", one) for one in pictures), class_="figures")


def _four(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
