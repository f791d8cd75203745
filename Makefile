# Two commands do the work: `make demo` labels a small archive, `make test` runs the tests.
# `make check` is lint, contracts, types and fast tests; `make test-dear` runs the few tests that
# `make test` leaves out; `make docs` builds site/; `make bench` times the kernels beside what they
# replace. Each makes its own environment in .venv and needs no more
# than Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VIEW := $(VENV)/view

# torch that is in .venv already is kept: a CPU build on a machine without a GPU, say, or the one
# that fits a server's driver. 2.13 and 2.14 are what is tested.
TORCH ?= torch==2.13.0

# Two processes share the tests, a file at a time: what a file's tests share is made once. Files come
# in the order that tests/conftest.py gives them. Threads that wait give their core to the other
# process. On two cores three are done sooner, but crowd what tests of time and order look at.
JOBS ?= 2
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
	--no-loadscope-reorder

ROOMS := engine kernels export trainer bench

.PHONY: demo check test test-dear tested bench docs dist lint style contracts types clean

demo: $(VENV)/installed
	$(BIN)/alps demo demo

# Types are checked on one core, so whatever else there is to do is done beside them.
check: $(VENV)/installed-dev $(VIEW)/alps
	$(MAKE) -j 2 style contracts types tested WHICH='-m "not slow"'

test: $(VENV)/installed-dev $(VIEW)/alps
	$(MAKE) -j 2 style contracts types tested

test-dear: $(VENV)/installed-dev
	$(MAKE) tested WHICH='-m dear'

tested:
	$(PYTEST) $(WHICH)

bench: $(VENV)/installed-dev
	$(BIN)/python -m pytest bench --benchmark-quiet

docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean

dist: $(VENV)/installed-dev
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/twine check --strict dist/*

lint: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

style: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

contracts: $(VENV)/installed-dev $(VIEW)/alps
	PYTHONPATH=$(VIEW) $(BIN)/lint-imports --no-cache

types: $(VENV)/installed-dev $(VIEW)/alps
	MYPYPATH=$(VIEW) $(BIN)/mypy

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

# The package as a folder: what reads its files, not its imports, does not see an editable install.
$(VIEW)/alps: $(BIN)/pip
	mkdir -p $@
	ln -sfn $(foreach room,$(ROOMS),../../../$(room)) ../../../engine/public/__init__.py \
		../../../engine/public/py.typed $@/

clean:
	rm -rf $(VENV) demo site build dist *.egg-info .mypy_cache
