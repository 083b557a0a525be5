# What a developer needs, from a fresh clone with only Python (with venv), make and git.
#   make demo    train a small model and watch it          make check   format, lint, types, imports, tests
#   make test    the tests (PYTEST_ARGS='-n 2 -k fold')    make clean   remove everything that these made
#   make bench   every figure of docs/benchmarks.md, one after the other (25 minutes on a quiet machine)
# Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n auto
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# tf_keras has to match TensorFlow's minor version; pyproject.toml says why it comes without its dependencies.
TF_KERAS := tf_keras>=2.21,<2.22

.DEFAULT_GOAL := help
.PHONY: help demo test lint format check pictures bench clean

help:
	@sed -n '2,5s/^# \{0,3\}//p' Makefile

demo: $(VENV)/.demo-installed
	$(BIN)/cbmon demo

test: $(VENV)/.dev-installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev-installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test

pictures: $(VENV)/.dev-installed
	$(BIN)/python -m tests.pictures

# Another interpreter for the watch rows (with a cbmon from its wheel) and the rivals beside it:
#   make bench WATCH='ENVIRONMENT/bin/python -m benchmarks.watch --peers RIVALS/bin'
WATCH ?= $(BIN)/python -m benchmarks.watch
bench: $(VENV)/.dev-installed
	@for name in monitor_overhead follow chart; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done
	@echo "== watch"; $(WATCH)
	@for name in replay_process sweep fuzz soak; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf $(VENV) build dist cbmon.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage htmlcov snapshot_report.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cbmon needs Python 3.11 or newer as $(PYTHON); name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv or ensurepip: install it (Debian, Ubuntu: the package python3-venv) and repeat." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps hold the set-up to once per pyproject.toml.
$(VENV)/.dev-installed: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[dev]'
	$(PIP) install --no-deps '$(TF_KERAS)'
	@touch $@

# TensorFlow without its GPU half where there is such a wheel (half the download), unless one is there already.
$(VENV)/.demo-installed: pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) with TensorFlow (once; a few hundred MB) ..."
	$(PIP) install -e .
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("tensorflow") is None)' || \
	  $(PIP) install 'tensorflow-cpu>=2.16' 2>/dev/null || $(PIP) install -e '.[tensorflow]'
	@touch $@
