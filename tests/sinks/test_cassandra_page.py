"""The queries of docs/cassandra.md give what the page says, on a real node."""

import re
import secrets
from pathlib import Path

import pytest
from servers.cassandra import PASSWORD, USER

from pipelines import flows as main_job
from pipelines import generate

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "cassandra.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.xdist_group("cassandra")


@pytest.fixture(scope="module")
def keyspace(cassandra, tmp_path_factory):
    """Flows of the traffic that the page tells of, scored as it says."""
    folder, name = tmp_path_factory.mktemp("page"), f"page{secrets.token_hex(4)}"
    (made,) = re.findall(r"`python -m pipelines.generate --output small.pcap (.*?)`", PAGE)
    (scored,) = re.findall(r"scored with `(.*?)`", PAGE)
    capture = str(folder / "small.pcap")
    assert generate.main(["--output", capture, "--quiet", *made.split()]) == 0
    cassandra.create_keyspace(name)
    words = [str(TOP / word) if word.startswith("models/") else word for word in scored.split()]
    output = f"--output=cassandra://{cassandra.address}/{name}?consistency=ONE"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FLOWBEAM_CASSANDRA_USERNAME", USER)
        patched.setenv("FLOWBEAM_CASSANDRA_PASSWORD", PASSWORD)
        assert main_job.main(["--quiet", f"--input={capture}", output, f"--drift={folder}/drift", *words]) == 0
    return name


def told():
    """Each query of the page, and the answer beside it, as lines of words."""
    pairs = re.findall(r"```sql\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    return [(query, [line.split() for line in answer.splitlines()]) for query, answer in pairs]


def as_text(value):
    """A cell as the page shows it: of an explanation, the features with their values."""
    if not isinstance(value, list):
        return str(value)
    return ", ".join(f"{name} {number:g} {direction} {by:.2f}" for name, number, direction, by in value)


def test_there_are_the_three_queries():
    assert len(told()) == 3


@pytest.mark.parametrize("number", range(3), ids=["who-talks-to-whom", "what-is-new", "what-is-bad"])
def test_a_query_gives_what_the_page_says(cassandra, keyspace, number):
    query, said = told()[number]
    with cassandra.session() as session:
        rows = list(session.execute(query.replace("FROM ", f"FROM {keyspace}.")))
    lines = [list(rows[0]), *([as_text(value) for value in row.values()] for row in rows)]
    assert [" ".join(line).split() for line in lines] == said
