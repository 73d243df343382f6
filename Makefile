# Every target sets itself up in .venv from a bare clone; all it needs is Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints/ci.txt
# A file's tests stay together: pages share a namespace and a working folder. Two processes of one thread each are
# faster than one of two threads, which wait for each other longer than either computes.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
# Bytecode is kept, whatever the caller's environment says: without it each process that a test starts compiles all it
# imports anew, some twenty seconds for PyTorch and Transformers.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test thorough check bench docs clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.runs  ## watch the main job on a real model
	$(BIN)/strop demo

test: $(VENV)/.develops  ## the tests, the real model included, in under ten minutes
	$(PYTEST)

thorough: $(VENV)/.develops  ## what takes long: runs killed and gone on with, every architecture, every case
	$(PYTEST) -m thorough

check: $(VENV)/.develops  ## lint, types, walls, and all that the documents show is run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet
	$(PYTEST) README.md docs src tests/guards -q

bench: $(VENV)/.develops  ## ratios against baselines, as JSON in benchmarks/results
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

docs: $(VENV)/.develops  ## the site, in site/
	$(BIN)/mkdocs build --strict

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Strop needs Python 3.11 or later; say which with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: pyproject.toml constraints/ci.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.develops: pyproject.toml constraints/ci.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.runs $@

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
