"""Entry points: options and wiring, nothing else."""
