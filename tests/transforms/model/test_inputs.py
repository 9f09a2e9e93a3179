"""Flows as a forest reads them."""

import numpy as np
import pyarrow as pa
import pytest

from transforms import fields
from transforms.features import sets
from transforms.model.inputs import as_float32, canonical_needed, model_inputs, numeric_features
from transforms.records import InputError


def flows_of(feature_set, rows=5):
    """Flows with numbers in all columns, and nulls in every second row of what is not common."""
    columns = [*fields.COMMON, *(sets.CANONICAL[name] for name in sets.get(feature_set).canonical)]
    names = {field.name for field in fields.COMMON}
    arrays = []
    for number, field in enumerate(columns):
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            values = [None if field.name not in names and row % 2 else number * 7 % 100 + row for row in range(rows)]
            arrays.append(pa.array(values, pa.float64()).cast(field.type))
        elif pa.types.is_binary(field.type) or pa.types.is_fixed_size_binary(field.type):
            arrays.append(pa.array([bytes(16)] * rows, field.type))
        elif pa.types.is_string(field.type):
            arrays.append(pa.array(["10.0.0.1"] * rows, field.type))
        else:
            arrays.append(pa.nulls(rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=fields.arrow_schema(columns))


@pytest.mark.parametrize("feature_set", sets.SETS)
def test_the_values_are_those_that_the_set_publishes(feature_set):
    """A model that learned from published columns reads the same numbers here; null is NaN."""
    features = numeric_features(feature_set)
    flows = flows_of(feature_set)
    published = sets.get(feature_set).published(flows)
    inputs = model_inputs(flows, feature_set, features)
    assert tuple(inputs) == features
    for name, values in inputs.items():
        assert values.dtype == np.float32
        expected = [np.nan if value is None else np.float32(value) for value in published.column(name).to_pylist()]
        np.testing.assert_array_equal(values, np.array(expected, np.float32), name)


def test_features_are_numbers_that_do_not_name_the_flow():
    names = numeric_features("cic@1")
    assert len(names) == 76
    assert not set(names) & {"Flow ID", "Src IP", "Dst Port", "Timestamp", "Label"}
    assert "history" not in numeric_features("flowbeam@1")


def test_the_canonical_columns_behind_features():
    assert canonical_needed("cic@1", ["Total Fwd Packet", "Flow Duration"]) == ("fwd_packets", "flow_duration_us")
    with pytest.raises(InputError, match=r"cic@1 has no columns Luck"):
        canonical_needed("cic@1", ["Luck"])


def test_flows_of_another_set_are_refused():
    flows = flows_of("flowtbag@1")
    with pytest.raises(InputError, match=r"columns of cic@1 that these flows lack: .*--features cic@1"):
        model_inputs(flows, "cic@1", numeric_features("cic@1"))


def test_only_numbers_become_inputs():
    flows = flows_of("flowbeam@1")
    with pytest.raises(InputError, match="src_ip: a column of string is no number"):
        model_inputs(flows, "flowbeam@1", ["src_ip"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([True, None, False]), [1, np.nan, 0]),
        (pa.array([1, None, 2**62]), [1, np.nan, np.float32(2**62)]),
        (pa.array([0.1, np.inf, None]), [np.float32(0.1), np.inf, np.nan]),
        (pa.array([3, 4], pa.uint8()), [3, 4]),
        (pa.array([], pa.int64()), []),
        (pa.array([9, 1, 2, None])[1:], [1, 2, np.nan]),
        (pa.chunked_array([[1.5, None], [], [2.5]]), [1.5, np.nan, 2.5]),
    ],
    ids=["truth-values", "large", "infinite", "small", "empty", "slice", "chunks"],
)
def test_numbers_of_every_kind(values, expected):
    np.testing.assert_array_equal(as_float32(values), np.array(expected, np.float32))


def test_a_number_is_the_same_whatever_stands_beside_it():
    rounded_twice = 2**60 + 2**36 + 1  # as float64 a tie between two float32
    alone, beside_null = as_float32(pa.array([rounded_twice])), as_float32(pa.array([rounded_twice, None]))
    assert alone[0] == beside_null[0] == np.float32(2**60 + 2**37)
