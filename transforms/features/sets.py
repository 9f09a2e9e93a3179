"""Feature sets: ordered, versioned lists of columns under the names that models and other tools know them by."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import pyarrow as pa

from transforms import fields
from transforms.features import cic, flowtbag, nfstream
from transforms.features.columns import UNCHANGED, Column
from transforms.features.families import FAMILIES
from transforms.fields import Field
from transforms.records import InputError

CANONICAL: dict[str, Field] = {
    field.name: field for field in (*fields.COMMON, *(field for family in FAMILIES for field in family.FIELDS))
}
"""Every column of ours by its name: the common ones, then each family's."""

_COMMON = frozenset(field.name for field in fields.COMMON)
_LABEL = "label"


@dataclass(frozen=True)
class FeatureSet:
    """An ordered list of published columns.

    Attributes:
        name: Name and version, `cic@1`. Flows and models carry it; a change of any column is a new version.
        columns: The columns in their published order.
    """

    name: str
    columns: tuple[Column, ...]

    @cached_property
    def canonical(self) -> tuple[str, ...]:
        """The columns of families that the set is made of, each once, in the order of their first use."""
        return tuple(name for name in _sources(self.columns) if name not in _COMMON)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The canonical columns that describe a flow without naming it: what a model may learn from, each once."""
        return _sources(column for column in self.columns if column.kind == "feature")

    def published(self, flows: pa.RecordBatch) -> pa.RecordBatch:
        """The flows in the set's columns, names and order; for `flowbeam@1` the flows as they are.

        A label is empty unless the flows have a column `label`.

        Raises:
            InputError: The flows were made without the set's features.
        """
        if self.name == FLOWBEAM:
            return flows
        absent = [name for name in _sources(self.columns) if name not in flows.schema.names]
        if absent:
            raise InputError(
                f"{self.name} needs columns that these flows lack: {some(absent)}; make the flows with this feature set"
            )
        if _LABEL not in flows.schema.names:
            flows = flows.append_column(_LABEL, pa.nulls(len(flows), pa.string()))
        values = [
            column.conversion.apply(*(flows.column(name) for name in column.canonical)) for column in self.columns
        ]
        published = pa.RecordBatch.from_arrays(values, names=[column.name for column in self.columns])
        return published.replace_schema_metadata({"features": self.name})

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of `published`."""
        canonical = fields.arrow_schema([*fields.COMMON, *(CANONICAL[name] for name in self.canonical)])
        return self.published(pa.RecordBatch.from_pylist([], canonical)).schema


def _sources(columns: Iterable[Column]) -> tuple[str, ...]:
    names = dict.fromkeys(name for column in columns if column.kind != "label" for name in column.canonical)
    return tuple(names)


def _identifies(field: Field) -> bool:
    counted = field.name.startswith(("fwd_", "rev_"))
    return field.unit == "ns" or (field.name in _COMMON and not counted)


FLOWBEAM = "flowbeam@1"

SETS: dict[str, FeatureSet] = {
    feature_set.name: feature_set
    for feature_set in (
        FeatureSet(
            FLOWBEAM,
            tuple(
                Column(name, (name,), UNCHANGED, "identity" if _identifies(field) else "feature")
                for name, field in CANONICAL.items()
            ),
        ),
        FeatureSet("cic@1", cic.COLUMNS),
        FeatureSet("flowtbag@1", flowtbag.COLUMNS),
        FeatureSet("nfstream@1", nfstream.COLUMNS),
    )
}


def get(name: str) -> FeatureSet:
    """The feature set called `name`, version included.

    Raises:
        InputError: There is none; the message lists those that there are.
    """
    if name in SETS:
        return SETS[name]
    versions = [known for known in SETS if known.partition("@")[0] == name.partition("@")[0].lower()]
    hint = f"did you mean {' or '.join(versions)}?" if versions else f"known are {', '.join(SETS)}"
    raise InputError(f"unknown feature set {name!r}: {hint}")


def features_for(sets: Iterable[FeatureSet]) -> tuple[str, ...]:
    """The columns of families that `sets` are made of, each once, in the families' order whatever the sets' order."""
    needed = {name for feature_set in sets for name in feature_set.canonical}
    return tuple(name for name in CANONICAL if name in needed)


def families_for(sets: Iterable[FeatureSet]) -> tuple[ModuleType, ...]:
    """The families that the columns of `sets` come from; no other need be folded."""
    needed = set(features_for(sets))
    return tuple(family for family in FAMILIES if not needed.isdisjoint(field.name for field in family.FIELDS))


def some(names: list[str], most: int = 5) -> str:
    """The first few of `names`, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
