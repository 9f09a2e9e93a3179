"""From flows to what a forest reads: columns of float32, where a null is NaN."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyarrow as pa

from transforms.features import sets
from transforms.features.columns import Column
from transforms.records import InputError


def numeric_features(feature_set: str) -> tuple[str, ...]:
    """The published columns of a set that a model can learn from: numbers that describe a flow without naming it.

    Raises:
        InputError: There is no such set.
    """
    schema = sets.get(feature_set).schema
    return tuple(
        column.name
        for column in sets.get(feature_set).columns
        if column.kind == "feature" and _is_number(schema.field(column.name).type)
    )


def canonical_needed(feature_set: str, features: Iterable[str]) -> tuple[str, ...]:
    """The canonical columns that these published ones are made of, each once.

    Raises:
        InputError: The set, or a column in it, does not exist.
    """
    needed = dict.fromkeys(name for column in _columns(feature_set, tuple(features)) for name in column.canonical)
    return tuple(needed)


def model_inputs(flows: pa.RecordBatch | pa.Table, feature_set: str, features: Iterable[str]) -> dict[str, np.ndarray]:
    """The columns `features` of `feature_set`, by their published names, as `float32[n_flows]`; null is NaN.

    The values are those of `FeatureSet.published`, but only these columns are made.

    Raises:
        InputError: The set or a column in it does not exist, the flows lack it, or it is no number.
    """
    columns = _columns(feature_set, tuple(features))
    have = set(flows.schema.names)
    absent = sorted({name for column in columns for name in column.canonical} - have)
    if absent:
        raise InputError(
            f"the model needs columns of {feature_set} that these flows lack: {sets.some(absent)};"
            f" make the flows with --features {feature_set}"
        )
    return {column.name: _values(column, flows) for column in columns}


def as_float32(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of numbers or truth values as float32, where a null is NaN; `float32[n]`.

    Raises:
        InputError: It has values of another kind.
    """
    if not _is_number(values.type):
        raise InputError(f"a column of {values.type} is no number that a model can read")
    numbers = np.empty(len(values), np.float32)
    begin = 0
    for chunk in values.chunks if isinstance(values, pa.ChunkedArray) else (values,):
        into = numbers[begin : begin + len(chunk)]
        begin += len(chunk)
        if chunk.null_count:
            into[:] = chunk.fill_null(False if pa.types.is_boolean(chunk.type) else 0).to_numpy(zero_copy_only=False)
            into[chunk.is_null().to_numpy(zero_copy_only=False)] = np.nan
        else:
            into[:] = chunk.to_numpy(zero_copy_only=False)
    return numbers


@lru_cache
def _columns(feature_set: str, features: tuple[str, ...]) -> tuple[Column, ...]:
    by_name = {column.name: column for column in sets.get(feature_set).columns}
    absent = [name for name in features if name not in by_name]
    if absent:
        raise InputError(f"{feature_set} has no columns {sets.some(absent)}")
    return tuple(by_name[name] for name in features)


def _values(column: Column, flows: pa.RecordBatch | pa.Table) -> np.ndarray:
    values = column.conversion.apply(*(flows.column(name) for name in column.canonical))
    try:
        return as_float32(values)
    except InputError as error:
        raise InputError(f"{column.name}: {error}") from None


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
