# Everything is done by `make`; `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# Processes that share the tests; each starts servers of its own.
TEST_PROCESSES ?= 2
# More for the benchmark, such as BENCH="limits delay --repeat 5"; BENCH=--help shows what there is.
BENCH ?=
# Whom to compare with and how, such as BENCH_PEERS="celery huey --repeat 5"; --help says more.
BENCH_PEERS ?=
# Which faults, such as FAULTS="-k kill-worker"; tests/faults/README.md says more.
FAULTS ?=
# How long and how much, such as SOAK="--seconds 120 --tasks 20000 --seed 7"; SOAK=--help says more.
SOAK ?=

.DEFAULT_GOAL := help
.PHONY: help setup generate verify lint format test faults soak demo up bench bench-smoke bench-report bench-peers clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install meshq and everything it needs into .venv

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "meshq needs Python 3.11 or newer, not %d.%d" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

generate: $(STAMP) ## Generate the Python code of the contract
	$(BIN)/python proto/generate.py

verify: $(STAMP) ## Check that the generated code is current and the contract is well-formed
	$(BIN)/python proto/generate.py --check
	$(BIN)/python proto/generate.py --image $(VENV)/contract.binpb
	$(BIN)/buf lint $(VENV)/contract.binpb --config proto/buf.yaml

lint: $(STAMP) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Put the code into its style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

test: $(STAMP) ## Run the unit, integration and end-to-end tests on real servers
	$(BIN)/pytest -m 'not slow' -n $(TEST_PROCESSES) --dist loadgroup

faults: $(STAMP) ## Break everything that can break, under load, and check that nothing is lost
	$(BIN)/pytest tests/faults $(FAULTS)
	$(if $(FAULTS)$(MESHQ_FAULTS_SHORT),,$(BIN)/pytest -m slow)

soak: $(STAMP) ## Break things at random for ten minutes under 200,000 tasks, and check that nothing is lost
	PYTHONPATH=tests $(BIN)/python -m faults.soak $(SOAK)

demo: $(STAMP) ## Start the whole system and run the main job on real input
	$(BIN)/python -m meshq.local.demo

up: $(STAMP) ## Start the whole system and leave it running; Ctrl-C stops it
	$(BIN)/meshq up

bench: $(STAMP) ## Measure throughput and latency end to end
	$(BIN)/python -m meshq.local.bench $(BENCH)

bench-smoke: $(STAMP) ## Fail when tasks cost much more than their stores alone, in one short run
	$(BIN)/python -m meshq.local.bench.smoke

bench-report: $(STAMP) ## Measure everything for an hour or so, and write docs/performance.md
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	$(BIN)/python -m meshq.local.bench all --report docs/performance.md $(BENCH)

bench-peers: $(STAMP) ## Measure meshq beside Celery, Dramatiq, Huey, Taskiq, SAQ, arq, RQ and Procrastinate
	PYTHONPATH=tests $(BIN)/python -m bench.peers $(BENCH_PEERS)

clean: ## Remove what the targets made
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .meshq dist build
