"""Reads tables that say of each flow what it is: those of `pipelines.generate --labels`, and others by flow id."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from training.labels.attacks import Attack
from training.labels.events import ANYTIME, AT_FIRST, BY_ENDS, BY_FLOW_ID, EventColumns, Events, ends_keys, hex_keys
from transforms.enrich.address_numbers import network_numbers
from transforms.features.sets import some
from transforms.records import InputError

_ENDS = ("src_ip", "src_port", "dst_ip", "dst_port", "protocol", "flow_first_ns")
_LABELS = ("class", "label", "Label")
_CATEGORIES = ("name", "attack_category")
MOST_NAMES = 10_000


def read_truth(path: Path, benign: str) -> Events:
    """The flows of a CSV with `flow_id` and `class` or `label`.

    With addresses, ports, protocol and `flow_first_ns`, flows are found by those: so the settings that a flow id
    depends on, such as the sensor's name, may differ.

    Args:
        path: The table.
        benign: What benign flows are called.

    Raises:
        InputError: It cannot be read, or a column is missing or wrong.
    """
    types = {name: pa.string() for name in ("flow_id", "src_ip", "dst_ip", *_LABELS, *_CATEGORIES)}
    types |= {name: pa.int64() for name in ("src_port", "dst_port", "protocol", "flow_first_ns")}
    try:
        table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types)).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    label = next((name for name in _LABELS if name in table.column_names), None)
    if label is None:
        raise InputError(f"{path}: has flow_id, but no column class or label")
    category = next((name for name in _CATEGORIES if name in table.column_names), label)
    attacks, attack = _attacks(path, table[label].fill_null(""), table[category].fill_null(""), benign)
    if set(_ENDS) <= set(table.column_names):
        src, dst = (network_numbers(_column(table, name)) for name in ("src_ip", "dst_ip"))
        ports = (_column(table, name).fill_null(0).to_numpy(False) for name in ("src_port", "dst_port", "protocol"))
        events = EventColumns(ends_keys(src, dst, *ports), table["flow_first_ns"].fill_null(0).to_numpy(), attack)
        return Events(attacks, events, BY_ENDS, AT_FIRST, names_every_flow=True)
    keys = hex_keys(_column(table, "flow_id"))
    if keys is None:
        raise InputError(f"{path}: flow_id: some are no flow ids of 32 hex digits")
    return Events(attacks, EventColumns(keys, np.zeros(len(keys), np.int64), attack), BY_FLOW_ID, ANYTIME,
                  names_every_flow=True)  # fmt: skip


def _attacks(path: Path, labels: pa.Array, categories: pa.Array, benign: str) -> tuple[list[Attack], np.ndarray]:
    """The different labels and categories, by name, and which of them each row has."""
    pairs = pc.binary_join_element_wise(labels, categories, "\0").combine_chunks().dictionary_encode()
    if len(pairs.dictionary) > MOST_NAMES:
        raise InputError(f"{path}: more than {MOST_NAMES:,} labels, such as {some(labels.unique().to_pylist()[:5])}")
    names = [tuple(pair.split("\0")) for pair in pairs.dictionary.to_pylist()]
    ordered = sorted(range(len(names)), key=lambda place: names[place])
    places = np.empty(len(names), np.int64)
    places[ordered] = np.arange(len(names))
    rows = np.bincount(pairs.indices.to_numpy(), minlength=len(names))
    attacks = [
        Attack(names[one][0], names[one][1], path.name, is_benign=names[one][0].lower() == benign.lower(),
               events=int(rows[one]))
        for one in ordered
    ]  # fmt: skip
    return attacks, places[pairs.indices.to_numpy()]


def _column(table: pa.Table, name: str) -> pa.Array:
    return pa.concat_arrays(table[name].chunks) if table[name].num_chunks != 1 else table[name].chunk(0)
