"""Training, from labelled tables to a model folder: guard, split, choose, grow, judge, write."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from training import leak_guard
from training.classes import BINARY, MULTICLASS, known_first, prepared
from training.judging import Judged, Limit, fingerprint, judge, part_of, short, threshold_of, version
from training.report import DataFile, Judgement, LearningPoint, Report
from training.selection import NONE, SELECTIONS, permutation_importance, select
from training.split import GROUP_TEST_PART, SplitRule
from training.tables import ALL, Table, Wanted, read_table, with_rows_only
from training.trees import TreeSettings, fit_trees
from training.tuning import tune
from transforms.features import sets
from transforms.model.folder import Model
from transforms.model.reference import Reference
from transforms.records import InputError

Say = Callable[[str], None]

IMPORTANCE = "growth of the log loss when the column is shuffled"

_MOST_ROWS_BESIDE = 50_000
"""Rows that trees grown for a comparison learn from."""

_MOST_ROWS_SHUFFLED = 4_000
_CURVE_PARTS = (0.05, 0.2)


@dataclass
class TrainSettings:
    """What a person asks for.

    Attributes:
        flows: Files, or folders of Parquet files.
        label: The column of labels.
        features: A feature set, or `all`.
        split: Which rows are judged.
        name: Of the model.
        task: `binary`, `multiclass`, or empty for what the labels are.
        benign: The class that is no alert; empty where its name tells.
        max_fpr: The part of benign flows that may raise an alert; 0 leaves the threshold at one half.
        selection: How features are chosen.
        max_features: How many stay.
        trials: Settings of trees to try.
        allow_leaks: Columns that the leak guard lets pass.
        max_rows: Rows that are kept of larger tables.
        header: Whether CSV files have one.
        seed: Of all that is drawn.
        beside: Trains again on fewer rows and on another split, for the report.
        trees: How trees are grown, before tuning.
    """

    flows: tuple[str, ...]
    label: str
    features: str
    split: SplitRule
    name: str = "model"
    task: str = ""
    benign: str = ""
    max_fpr: float = 0.0
    selection: str = NONE
    max_features: int = 0
    trials: int = 0
    allow_leaks: tuple[str, ...] = ()
    max_rows: int = 200_000
    header: bool = True
    seed: int = 1
    beside: bool = True
    trees: TreeSettings = field(default_factory=TreeSettings)

    def __post_init__(self) -> None:
        if self.features != ALL:
            sets.get(self.features)
        if self.task not in ("", BINARY, MULTICLASS):
            raise InputError(f"--task {self.task}: write {BINARY} or {MULTICLASS}")
        if self.selection not in SELECTIONS:
            raise InputError(f"--selection {self.selection}: write one of {', '.join(SELECTIONS)}")
        if self.selection != NONE and self.max_features < 1:
            raise InputError(f"--selection {self.selection}: say how many with --max_features, 1 or more")
        if self.selection == NONE and self.max_features:
            raise InputError("--max_features: say how they are chosen, with --selection permutation or catraca")
        if not 0 <= self.max_fpr < 1:
            raise InputError(f"--max_fpr {self.max_fpr}: is no part of flows; write a number from 0 to below 1")
        if self.trials < 0:
            raise InputError(f"--tune {self.trials}: cannot be; write a number of trials, or 0 for none")
        if self.max_rows < 100:
            raise InputError(f"--max_rows {self.max_rows}: too few to learn from; give 100 or more")

    @property
    def in_time(self) -> bool:
        """Whether rows are judged that come after those learned from."""
        return self.split.kind in ("time", "order")


class Trained(NamedTuple):
    """All that goes into a model folder.

    Attributes:
        model: What `model.json` says, less id and files.
        trees: YDF's model.
        reference: What the training data looked like.
        report: The page.
        train: The rows that were learned from.
        test: Those that were judged.
    """

    model: Model
    trees: Any
    reference: Reference
    report: Report
    train: Table
    test: Table


def train(settings: TrainSettings, say: Say) -> Trained:
    """Trains a model.

    Args:
        settings: What is asked for.
        say: Told in one line each what a person should know before the end.

    Raises:
        InputError: The data cannot be learned from as asked.
    """
    table, task, benign = _read(settings, say)
    split = settings.split.apply(table, settings.seed)
    table, known = known_first(table, split.train, benign)
    leaks = leak_guard.guard(table.rows(split.train), settings.allow_leaks)
    table = table.with_columns(leak_guard.left(table, leaks))
    for line in (*leak_guard.lines(leaks), *split.warnings):
        say(line)
    chosen = select(
        with_rows_only(table.rows(split.train))[0],
        settings.selection,
        settings.max_features,
        settings.trees,
        settings.seed,
    )
    table = table.with_columns(chosen)
    learned, tested = with_rows_only(table.rows(split.train))[0], table.rows(split.test)
    grown = settings.trees
    if settings.trials:
        grown = tune(learned, settings.trials, grown, settings.in_time, settings.seed)[0].settings
        say("tuned: " + ", ".join(f"{name} {value}" for name, value in grown.as_texts().items()))
    trees = fit_trees(learned, grown, settings.seed)
    limit = Limit(settings.max_fpr, settings.in_time)
    threshold, doubt = threshold_of(learned, benign, limit, grown, settings.seed)
    if doubt:
        say(doubt)
    judged = judge(trees, tested, benign, threshold)
    doubts = (*split.warnings, *([table.found.sampling] if table.found.sampled else []), *([doubt] if doubt else []))
    report = Report(
        model=settings.name,
        task=task,
        split=str(settings.split),
        has_times=table.times is not None,
        files=tuple(DataFile(name, rows) for name, rows in table.found.files.items()),
        tested=part_of(tested),
        metrics=judged.metrics,
        trained=part_of(learned),
        feature_set=None if settings.features == ALL else settings.features,
        features=tuple(chosen),
        threshold=threshold,
        importance=importance(trees, tested.rows(tested.labels < known), settings.seed),
        importance_means=IMPORTANCE,
        leaks=tuple(leaks),
        cleaning=table.found.counts(),
        selection=f"{settings.selection}: {len(chosen)} columns" if settings.selection != NONE else "",
        settings=grown.as_texts() | {"seed": str(settings.seed)},
        warnings=doubts,
        fingerprint=fingerprint(learned),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        flowbeam=version(),
    )
    if settings.beside:
        report.learning_curve = tuple(_learning_curve(learned, tested, benign, grown, settings.seed, judged))
        report.other_splits = tuple(_other_split(table, benign, grown, settings))
    reference = Reference.of(learned.columns, judged.scores, judged.wrong)
    return Trained(_model(settings, report, learned, benign, grown), trees, reference, report, learned, tested)


def importance(trees: Any, table: Table, seed: int) -> tuple[tuple[str, float], ...]:
    """Features with what they add, the greatest first; nothing without rows."""
    return tuple(permutation_importance(trees, table.at_most(_MOST_ROWS_SHUFFLED, 0), seed)) if len(table) else ()


def _read(settings: TrainSettings, say: Say) -> tuple[Table, str, str]:
    wanted = Wanted(settings.features, settings.label, settings.split.group, header=settings.header)
    table = read_table(settings.flows, wanted, settings.max_rows, settings.seed)
    for line in table.found.lines():
        say(line)
    return prepared(table, settings.task, settings.benign)


def _model(settings: TrainSettings, report: Report, learned: Table, benign: str, grown: TreeSettings) -> Model:
    assert report.threshold is not None
    return Model(
        name=settings.name,
        created=report.created,
        flowbeam=report.flowbeam,
        task=report.task,
        feature_set=report.feature_set,
        features=report.features,
        classes=learned.classes,
        benign=benign,
        threshold=report.threshold,
        training={
            "fingerprint": report.fingerprint,
            "rows": len(learned),
            "split": report.split,
            "files": {file.name: file.rows for file in report.files},
            "seed": settings.seed,
            "label_column": settings.label,
            "max_fpr": settings.max_fpr,
            "trees": asdict(grown),
            "words": {name: words for name, words in learned.words.items() if name in report.features},
            "header": settings.header,
            "leaks": [leak._asdict() for leak in report.leaks],
        },
        metrics=short(report.metrics),
    )


def _learning_curve(
    train_rows: Table, test_rows: Table, benign: str, grown: TreeSettings, seed: int, whole: Judged
) -> Iterator[LearningPoint]:
    for part in _CURVE_PARTS:
        rows = round(min(len(train_rows), _MOST_ROWS_BESIDE) * part)
        some = train_rows.at_most(rows, seed)
        if len(with_rows_only(some)[1]) == len(train_rows.classes):
            metrics = judge(fit_trees(some, grown, seed), test_rows, benign, 0.5).metrics
            yield LearningPoint(rows, metrics.accuracy, metrics.macro_f1)
    yield LearningPoint(len(train_rows), whole.metrics.accuracy, whole.metrics.macro_f1)


def _other_split(table: Table, benign: str, grown: TreeSettings, settings: TrainSettings) -> Iterator[Judgement]:
    """The same training with a split at random, or of a random one in time."""
    if settings.split.kind == "random":
        rule = SplitRule("time", f"{1 - settings.split.part:.4g}")
    else:
        rule = SplitRule("random", f"{1 - settings.split.part:.4g}" if settings.in_time else str(GROUP_TEST_PART))
    split = rule.apply(table, settings.seed)
    try:
        table, _ = known_first(table, split.train, benign)
    except InputError:  # nothing to learn from before that time
        return
    some, _ = with_rows_only(table.rows(split.train).at_most(_MOST_ROWS_BESIDE, settings.seed))
    test = table.rows(split.test)
    if some.classes == table.classes[: len(some.classes)]:
        yield Judgement(str(rule), judge(fit_trees(some, grown, settings.seed), test, benign, 0.5).metrics)
