"""Prism runs a pipeline, from the program that `make servers` built."""

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to


def test_prism_runs_a_stateful_pipeline(prism):
    with beam.Pipeline(options=PipelineOptions(prism)) as pipeline:
        sums = pipeline | beam.Create([("a", 1), ("b", 2), ("a", 3)]) | beam.CombinePerKey(sum)
        assert_that(sums, equal_to([("a", 4), ("b", 2)]))
