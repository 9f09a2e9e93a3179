"""Which families there are, ours and a user's, and the layout of their states in a row of the table."""

import hashlib
import importlib
import inspect
from collections.abc import Iterable, Sequence
from types import ModuleType

import numpy as np

from transforms.features.families import FAMILIES
from transforms.fields import COMMON
from transforms.records import InputError

_by_field: dict[str, ModuleType] = {}


def family_named(field: str) -> ModuleType:
    """The family whose state is the field `field` of a row's states."""
    return _by_field[field]


def field_of(family: ModuleType) -> str:
    """Name of the family's field in a row's states.

    A user's family carries a hash of its source in the name: the compiled fold is cached by the row's layout, so an
    edited family is compiled anew.
    """
    name = family.__name__.rpartition(".")[2]
    if not family.__name__.startswith("transforms.features."):
        name += "_" + hashlib.blake2b(inspect.getsource(family).encode(), digest_size=4).hexdigest()
    _by_field[name] = family
    return name


def states_dtype(families: Iterable[ModuleType]) -> np.dtype:
    """The states of `families`, one nested record each, in their order."""
    return np.dtype([(field_of(family), family.STATE) for family in families if family.STATE is not None], align=True)


def load_family(name: str) -> ModuleType:
    """Imports a user's family by the name of its module.

    Raises:
        InputError: The module is not to be found, or is no family.
    """
    try:
        family = importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"--feature_module: cannot import {name}: {error}; is its folder on PYTHONPATH?") from error
    missing = [part for part in ("FIELDS", "STATE", "features") if not hasattr(family, part)]
    if not missing and family.STATE is not None and not hasattr(family, "update"):
        missing = ["update"]
    if missing:
        raise InputError(f"--feature_module: {name} has no {', '.join(missing)}; see docs/add_a_feature.md")
    return family


def load_families(names: Sequence[str]) -> tuple[ModuleType, ...]:
    """Imports a user's families and checks that no two columns, ours included, have one name."""
    families = tuple(load_family(name) for name in names)
    seen = {field.name for field in COMMON} | {field.name for family in FAMILIES for field in family.FIELDS}
    for family in families:
        for field in family.FIELDS:
            if field.name in seen:
                raise InputError(
                    f"--feature_module: column {field.name} of {family.__name__} exists already; rename it"
                )
            seen.add(field.name)
    return families
