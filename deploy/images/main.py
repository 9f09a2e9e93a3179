"""What Dataflow's launcher runs: the main job, as `python -m pipelines.flows` does."""

from pipelines.flows import main
from pipelines.terminal import leave

if __name__ == "__main__":
    leave(main())
