"""Rows of a feature set: our Parquet flows, and published tables of CICFlowMeter's columns."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from training.rows import Block, Found, Wanted, batches_of, group_column, groups_of, labels_of, named, opened
from transforms.cic_csv import CicReport, read_cic_csv
from transforms.features import sets
from transforms.features.columns import Column
from transforms.model.inputs import canonical_needed, model_inputs
from transforms.records import InputError

_BLOCK_OCTETS = 4 << 20


def of_flows(path: str, feature_set: sets.FeatureSet, wanted: Wanted, found: Found) -> Iterator[Block]:
    """Rows of Parquet files that `pipelines.flows` and `pipelines.label` write.

    Raises:
        InputError: The file cannot be read, or lacks what is wanted.
    """
    with opened(path) as file:
        names = file.schema_arrow.names
        label = named(path, wanted.label, names, "--label_column")
        features = [column.name for column in _numbers(feature_set, None, wanted, found)]
        needed = canonical_needed(feature_set.name, features)
        absent = [name for name in needed if name not in names]
        if absent:
            raise InputError(
                f"{path}: {feature_set.name} needs columns that these flows lack: {sets.some(absent)}; "
                f"make the flows with --features {feature_set.name}"
            )
        group = group_column(path, wanted, names, feature_set)
        found.time_column = "flow_start_ns" if "flow_start_ns" in names else ""
        read = {*needed, label, group, found.time_column}
        for batch in batches_of(path, file, [name for name in names if name in read]):
            with np.errstate(over="ignore"):
                columns = model_inputs(batch, feature_set.name, features)
            yield Block(
                columns,
                labels_of(batch.column(label)),
                batch.column("flow_start_ns").to_numpy() if found.time_column else None,
                groups_of(path, wanted, batch.column(group) if group else None, len(batch)),
            )


def of_cic_table(path: str, feature_set: sets.FeatureSet, wanted: Wanted, found: Found) -> Iterator[Block]:
    """Rows of a CSV file in one of CICFlowMeter's four spellings; what of the set it lacks is left out.

    Raises:
        InputError: The file cannot be read, or lacks what is wanted.
    """
    rows = read_cic_csv(path, wanted.label, _BLOCK_OCTETS)
    names = rows.schema.names
    if "label" not in names:
        raise InputError(f"{path}: no column {wanted.label!r} (--label_column)")
    found.ignored.update(rows.report.ignored)
    found.duplicates.update(rows.report.duplicates)
    found.time_column = "flow_start_ns" if "flow_start_ns" in names else ""
    group = group_column(path, wanted, names, feature_set)
    features = [column.name for column in _numbers(feature_set, set(names), wanted, found)]
    absent = [name for name in wanted.columns or () if name not in features]
    if absent:
        raise InputError(f"{path}: has no columns that the model needs: {sets.some(absent)}")
    for batch in rows:
        with np.errstate(over="ignore"):
            columns = model_inputs(batch, feature_set.name, features)
        yield Block(
            columns,
            labels_of(batch.column("label")),
            batch.column("flow_start_ns").fill_null(0).to_numpy() if found.time_column else None,
            groups_of(path, wanted, batch.column(group) if group else None, len(batch)),
        )
    _count(rows.report, found)


def _count(report: CicReport, found: Found) -> None:
    dropped = {
        "that are the header again": report.repeated_headers,
        "that are empty": report.empty_rows,
        "with another number of columns": report.malformed_rows,
    }
    found.dropped.update({why: count for why, count in dropped.items() if count})
    for why, by_column in report.nulls.items():
        if count := sum(count for column, count in by_column.items() if column != "label"):
            found.nulls[why.replace("_", " ")] += count


def _numbers(feature_set: sets.FeatureSet, have: set[str] | None, wanted: Wanted, found: Found) -> list[Column]:
    """The set's columns of numbers that can be made, in its order, without those that say what another one says."""
    kept: list[Column] = []
    for column in feature_set.columns:
        if column.kind == "label" or (wanted.columns is not None and column.name not in wanted.columns):
            continue
        if have is not None and not have.issuperset(column.canonical):
            continue
        kind = feature_set.schema.field(column.name).type
        if column.kind == "identity":
            found.identities.add(column.name)
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            if column.kind == "feature":
                found.ignored.add(column.name)
        elif wanted.columns is None and any(one[1:3] == column[1:3] for one in kept):
            found.duplicates.add(column.name)
        else:
            kept.append(column)
    return kept
