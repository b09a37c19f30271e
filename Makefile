# The verbs a person needs. Each makes the environment in $(VENV) itself, so a fresh clone needs nothing before it.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
PROJECT := setup.cfg pyproject.toml

.PHONY: demo test lint types docs bench clean

demo: $(VENV)/.demo
	@.ci/system-packages demo
	$(BIN)/lagentlike demo

test: $(VENV)/.dev
	@.ci/system-packages
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.demo
	@.ci/system-packages demo
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@.ci/system-packages demo
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(PROJECT) | $(BIN)/python
	$(PIP) -e '.[plot]'
	@touch $@

# The exact torch first: a range would fetch the newest build and its accelerator libraries.
$(VENV)/.dev: $(PROJECT) | $(BIN)/python
	$(PIP) $(TORCH)
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(PROJECT) | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@
