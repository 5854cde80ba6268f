# `make demo` shows the main job, `make test` proves it; both set up what they need in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ORACLE := .peers/cerbos/.ready
STORES := .peers/go/.ready
PEERS  := .peers/go/bin/opa-authz

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types bench bench-peers oracle stores differential schemas clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY) ## a real Envoy in front of a sample API, decisions printed (ONCE=1: stop after the table)
	$(BIN)/python envoy/demo/demo.py $(if $(ONCE),--once)

test: $(READY) ## all tests, in as many processes as there are processors (ARGS="-n 0 tests/engine": some, in one)
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test ## lint, types, all tests

bench: $(READY) ## measure: phases, engine, server (table; JSON with ARGS="--json FILE")
	$(BIN)/python -m tests.bench $(ARGS)

$(PEERS): $(wildcard tests/bench/peers/go/* tests/bench/peers/go/*/*/*.go)
	-$(PYTHON) -m tests.bench.peers.build  # without them the others are compared
	@touch -c $@

bench-peers: $(READY) $(ORACLE) $(PEERS) ## side by side with Cerbos and OPA, direct and through Envoy (ARGS="--quick --json FILE")
	$(BIN)/python -m tests.bench.peers $(ARGS)

$(ORACLE): tests/differential/peers.py
	$(PYTHON) -m tests.differential.peers
	@touch $@

oracle: $(ORACLE) ## the real Cerbos and cerbosctl from npm, for the tests that compare with them

$(STORES): tests/engine/storage/peers.py
	$(PYTHON) -m tests.engine.storage.peers
	@touch $@

stores: $(STORES) ## the servers of S3 and Google Cloud Storage that the blob store is tested with (needs Go)

differential: $(READY) $(ORACLE) ## generated policies and requests to us and to Cerbos (ARGS="--checks 100000 --seed 7")
	$(BIN)/python -m tests.differential $(ARGS)

schemas: $(READY) ## write the schemas of messages anew, when envoy-data-plane is another version
	$(BIN)/python -m tests.schemas

clean: ## remove the environment and caches
	rm -rf $(VENV) .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis
