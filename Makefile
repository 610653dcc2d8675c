# Every target does its own set-up: Python 3.11 or newer and make are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SHELL := /bin/sh

.DEFAULT_GOAL := help
.PHONY: help demo test check bench setup generate format lint types contracts test-vllm image-lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# What running needs, at the versions of the lock.
$(VENV)/.run-stamp: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) install --constraint requirements.lock --editable '.[demo]'
	@touch $@

# What developing needs: everything in the lock.
$(VENV)/.dev-stamp: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) install --requirement requirements.lock
	$(PIP) install --no-deps --editable .
	@touch $@ $(VENV)/.run-stamp

setup: $(VENV)/.dev-stamp ## prepare .venv only

demo: $(VENV)/.run-stamp ## a simulated fleet scaled by the real daemon, live
	$(BIN)/scaler demo $(DEMO_ARGS)

test: $(VENV)/.dev-stamp lint types contracts image-lint ## everything that CI runs
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term:skip-covered --cov-fail-under=100

check: $(VENV)/.dev-stamp lint types contracts ## the part of test without external programs, under two minutes
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not external and not slow and not data'

lint: $(VENV)/.dev-stamp ## format and lint
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/yamllint --strict .

types: $(VENV)/.dev-stamp ## mypy in strict mode
	$(BIN)/mypy --no-error-summary

contracts: $(VENV)/.dev-stamp ## who may import whom
	$(BIN)/lint-imports

image-lint: $(VENV)/.dev-stamp ## lint the Dockerfile
	$(BIN)/hadolint Dockerfile

generate: $(VENV)/.dev-stamp ## stubs, reference tables, schemas: everything made from declarations
	$(BIN)/python -m scaler._generated.generate
	$(BIN)/python -m scaler.reference.generate

format: $(VENV)/.dev-stamp ## rewrite in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev-stamp ## measure what BENCHMARKS.md claims
	$(BIN)/python -m benchmarks

test-vllm: $(VENV)/.dev-stamp ## against a real vLLM on the CPU (installs several GB in a venv of its own)
	$(BIN)/python -m pytest -m vllm -s tests/vllm

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage .hypothesis
