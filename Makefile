# Two commands do the work: `make demo` labels a small archive, `make test` runs the tests.
# `make bench` times the kernels beside what they replace. Each makes its own environment in .venv
# and needs no more than Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The CPU build of torch 2.13 is what a machine without a GPU wants; on a GPU server install
# the build that fits its driver into .venv first, and it is kept.
TORCH ?= torch==2.13.0

.PHONY: demo test bench lint clean

demo: $(VENV)/installed
	$(BIN)/alps demo demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

bench: $(VENV)/installed-dev
	$(BIN)/python -m pytest bench --benchmark-quiet

lint: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ALPS needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/pip setup.py
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
