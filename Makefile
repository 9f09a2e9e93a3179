# Everything a checkout needs beside Python and make goes into the environment .venv; `make help` lists the targets.

PYTHON ?= python3
# Processes of pytest: as many as cores; 0 runs the tests in one, in order.
TEST_PROCESSES ?= auto

VENV := .venv
IN_VENV := $(VENV)/bin/python
BASE := $(VENV)/.base-installed
TOOLS := $(VENV)/.tools-installed
CODE := pipelines queues sources sinks training transforms

.DEFAULT_GOAL := help
.PHONY: help demo live test servers servers-bigquery lint types check check-all bench bench-live wheel lock docs clean

help:  ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' Makefile

demo: $(BASE)  ## makes traffic, its flows in the folder flows/, and shows which of them are attacks, and why
	@echo "== demo: flows of generated traffic, scored, into the folder flows/"
	$(IN_VENV) -m pipelines.flows --runner=DirectRunner --model models/demo --explain 3
	$(IN_VENV) demo/alerts.py flows

live: $(TOOLS)  ## shows flows of a replayed line as they end, by way of a broker and Prism, until Ctrl-C
	@echo "== live: flows on this terminal and in live/flows; Ctrl-C stops"
	$(IN_VENV) demo/live.py

test: $(TOOLS)  ## runs the tests
	@echo "== test: all tests but the slow ones; those of real captures and servers are skipped where there are none"
	$(IN_VENV) -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadgroup

servers: $(TOOLS)  ## fetches and builds the servers that tests use, once; takes some minutes
	@echo "== servers: Kafka, Prism, Flink, Elasticsearch, OpenSearch, Cassandra, Pub/Sub, into ~/.cache/flowbeam/servers (or FLOWBEAM_SERVERS)"
	$(IN_VENV) -m tests.servers.install

servers-bigquery: $(TOOLS)  ## builds the BigQuery emulator for the slow tests that want it; takes long
	@echo "== servers-bigquery: the emulator, into ~/.cache/flowbeam/servers (or FLOWBEAM_SERVERS)"
	$(IN_VENV) -m tests.servers.install bigquery

lint: $(TOOLS)  ## checks style with ruff
	@echo "== lint: ruff over code, tests and benchmarks"
	$(IN_VENV) -m ruff check .

types: $(TOOLS)  ## checks types with mypy
	@echo "== types: mypy, strict, over $(CODE)"
	$(IN_VENV) -m mypy

check: lint types test  ## lint, types and test

check-all: $(TOOLS)  ## compares with other tools over all real captures, and runs the slow tests
	@echo "== check-all: every real capture (FLOWBEAM_CORPUS, or ../shared/data) and the slow tests"
	FLOWBEAM_CHECK_ALL=1 $(IN_VENV) -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadgroup -m "corpus or slow"

bench: $(TOOLS)  ## measures speed and memory, beside other tools
	@echo "== bench: speed and memory, beside the other tools that are installed"
	$(IN_VENV) benchmarks/against_other_tools.py

bench-live: $(TOOLS)  ## measures the live path: sensor, Kafka, Prism, Flink, latency
	@echo "== bench-live: a sensor onto Kafka, and from there to flows; needs make servers"
	$(IN_VENV) benchmarks/live.py

wheel: $(TOOLS)  ## builds the wheel into dist/, alone there
	@echo "== wheel: dist/"
	rm -rf dist
	$(IN_VENV) -m build --wheel --outdir dist .

LOCKED := uv pip compile pyproject.toml --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28
lock: $(TOOLS)  ## resolves anew what images hold, into deploy/images/*.lock
	@echo "== lock: packages of the images, by hash"
	$(IN_VENV) -m $(LOCKED) --upgrade --output-file deploy/images/sensor.lock \
	  --extra kafka --extra pubsub --extra sensor
	$(IN_VENV) -m $(LOCKED) --upgrade --output-file deploy/images/worker.lock \
	  --extra kafka --extra pubsub --extra elasticsearch --extra bigquery --extra cassandra --extra gcp

docs: $(TOOLS)  ## writes the generated parts of docs/ and README.md
	@echo "== docs: docs/reference.md, and what README.md shows of options and of the demo"
	$(IN_VENV) -m transforms.reference
	$(IN_VENV) -m tests.readme_parts

clean:  ## removes the environment, caches and built packages; flows/, rejects/ and live/ stay
	@echo "== clean: the environment, caches and built packages"
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) tests benchmarks demo -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "flowbeam needs Python 3.10 to 3.13; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "== environment: $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "Python's venv is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

$(BASE): pyproject.toml setup.py | $(VENV)/bin/python
	@echo "== environment: installing flowbeam and what it needs (a minute or two, once)"
	$(IN_VENV) -m pip install --quiet --editable .
	$(IN_VENV) -m compileall -q $(CODE)
	@touch $@

$(TOOLS): $(BASE)
	@echo "== environment: installing the tools of the tests"
	$(IN_VENV) -m pip install --quiet --editable '.[test,bigquery,cassandra,elasticsearch,kafka,opensearch,pubsub,sensor,train]'
	@touch $@
