"""What to assemble: rules, feature sets and families, as one value that travels to the workers."""

from dataclasses import dataclass, field

from transforms.features import sets
from transforms.features.families import FAMILIES
from transforms.features.registry import load_families
from transforms.flow_records import FlowColumns
from transforms.flow_table import FlowTable
from transforms.rules import Rules


@dataclass(eq=False)
class FlowSettings:
    """How flows are assembled and which columns they get.

    Attributes:
        rules: When flows end, their key, the limits.
        feature_sets: Names of feature sets, `cic@1`.
        feature_modules: Modules of a user's own families; their columns stand after those of the sets.
    """

    rules: Rules = field(default_factory=Rules)
    feature_sets: tuple[str, ...] = (sets.FLOWBEAM,)
    feature_modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.columns()

    def columns(self, kind: type[FlowColumns] = FlowColumns) -> FlowColumns:
        """The record batches to make, at once or late.

        Raises:
            InputError: A set or a module does not exist, or a column would be there twice.
        """
        chosen = [sets.get(name) for name in dict.fromkeys(self.feature_sets)]
        own = load_families(self.feature_modules)
        names = [*sets.features_for(chosen), *(column.name for family in own for column in family.FIELDS)]
        features = [feature_set.name for feature_set in chosen]
        return kind((*FAMILIES, *own), names, features, self.rules.community_id_seed)

    def table(self, columns: FlowColumns, sensor: str) -> FlowTable:
        """An empty table for one sensor, or a shard of it."""
        return FlowTable(self.rules, columns.families, columns, sensor)
