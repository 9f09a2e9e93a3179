"""From labelled flows to models: labels, tables, the leak guard, splits, training, metrics and the report."""
