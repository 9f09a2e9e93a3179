"""The queries of docs/elasticsearch.md give what the page says, on a real Elasticsearch."""

import json
import re
import secrets
from pathlib import Path

import pytest

from pipelines import flows as main_job
from pipelines import generate

PAGE = Path(__file__).parents[2] / "docs" / "elasticsearch.md"


def told():
    """Each query of the page, and the answer beside it."""
    return re.findall(r"```json\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def as_lines(aggregations, depth=0):
    """Buckets, one a line: key, number of flows, and the values of what they hold."""
    for aggregation in aggregations.values():
        for bucket in aggregation.get("buckets", ()) if isinstance(aggregation, dict) else ():
            inner = {name: value for name, value in bucket.items() if isinstance(value, dict)}
            values = [
                f"{name} {value.get('value_as_string') or format(int(value['value']), ',')}"
                for name, value in inner.items()
                if "value" in value
            ]
            yield "  " * depth + ", ".join([str(bucket["key"]), f"{bucket['doc_count']:,} flows", *values])
            yield from as_lines(inner, depth + 1)


def answer(server, index, query):
    return "\n".join(as_lines(server.ask("POST", f"/{index}-*/_search", json.loads(query))["aggregations"])) + "\n"


@pytest.fixture(scope="module")
def index(elasticsearch, tmp_path_factory):
    """Flows of the traffic that the page tells of."""
    folder, index = tmp_path_factory.mktemp("page"), f"page-{secrets.token_hex(4)}"
    (options,) = re.findall(r"`python -m pipelines.generate --output demo.pcap (.*?)`", PAGE.read_text("utf-8"))
    capture = str(folder / "demo.pcap")
    assert generate.main(["--output", capture, "--quiet", *options.split()]) == 0
    output = f"elasticsearch://{elasticsearch.host}/{index}?replicas=0"
    assert main_job.main(["--runner=DirectRunner", "--quiet", f"--input={capture}", f"--output={output}"]) == 0
    elasticsearch.count(index)
    return index


def test_there_are_the_three_queries():
    assert len(told()) == 3


@pytest.mark.parametrize("number", range(3), ids=["who-talks-to-whom", "what-is-new", "what-is-bad"])
def test_a_query_gives_what_the_page_says(elasticsearch, index, number):
    query, said = told()[number]
    assert answer(elasticsearch, index, query) == said
