# Every target does all of its own set-up: on a fresh machine `make demo` or `make test` is the only command needed.
#   PYTHON=python3.12 make venv    another interpreter (3.10, 3.11 or 3.12)
#   TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu" make venv    PyTorch from another index
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
TORCH ?= $(shell grep '^torch==' constraints.txt)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help venv demo test test-slow lint bench clean
help:
	@echo "make demo | test | test-slow | lint | bench | venv | clean"

venv: $(STAMP)

# PyTorch comes first and alone, so that a CPU machine keeps its CPU build: nothing installed later asks for another.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "drive needs Python 3.10, 3.11 or 3.12; name one, as in: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/drive doctor compile
	@touch $@

demo: $(STAMP)
	$(BIN)/drive demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP)
	$(BIN)/python bench/run.py

clean:
	rm -rf $(VENV) build dist drive_vla.egg-info .pytest_cache .ruff_cache drive/__pycache__/numba-*
