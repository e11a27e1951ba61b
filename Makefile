# make quickstart: install into .venv and run the quickstart recipe. make test: lint, types and the whole test suite.
# PIP_ARGS reaches pip, for example to choose another build of torch: make quickstart PIP_ARGS="--index-url https://..."
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=

.PHONY: quickstart test lint types unit clean

quickstart: $(VENV)/.installed
	$(BIN)/g2sd run recipes/quickstart.yaml

test: lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(BIN)/pytest

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("g2sd-deploy needs Python 3.11 or newer, not " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache
