# Everything here needs Python 3.11 or newer and make, nothing else. The first target that is asked for builds
# .venv, and a change of pyproject.toml builds it anew. Another interpreter: make PYTHON=python3.13 ...

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# One stamp per layer, so that `make demo` does not wait for tools that only the tests or the pages need.
CORE := $(VENV)/stamp-core
DEV := $(VENV)/stamp-dev
DOCS := $(VENV)/stamp-docs
BENCH := $(VENV)/stamp-bench

# Tests run in processes, one a core: linear algebra that starts threads of its own would fight over the cores.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 BSR_THREADS=1 $(BIN)/python -m pytest -q --durations=10 -n $(JOBS)

SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench slow clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(CORE)  ## figures 1 and 3 of the paper, theory and a finite-size check, and a few numbers of one curve
	$(BIN)/bsr figure 1 --output demo/
	@echo
	@echo "Message passing on matrices of a few dozen rows, beside the theory (about a minute):"
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/bsr figure 3 --fast --output demo/
	@echo
	@echo "Bayes-optimal error against the number of samples, beta = 2, rho = 0.5, no noise:"
	@$(BIN)/bsr curve --alpha 0.1:0.7:7 --beta 2 --rho 0.5 --delta 0
	@echo
	@echo "The pictures:"
	@find "$(CURDIR)/demo" -type f -name '*.p[nd][gf]' | sort | sed 's/^/  /'

test: check  ## the checks below, then the notebooks and the test suite
	$(PYTEST) --nbmake notebooks
	$(PYTEST) --benchmark-disable

check: $(DEV)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(DEV)  ## the tests that take minutes
	$(PYTEST) --benchmark-disable -m slow

# The page is written also when a promise is missed; then the target fails.
bench: $(BENCH)  ## timings against other methods, into docs/benchmarks.md (minutes of an idle machine)
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest -q -m bench --benchmark-only --benchmark-columns=median,rounds \
		--benchmark-json=.benchmarks/measured.json benchmarks; status=$$?; \
	$(BIN)/python benchmarks/report.py .benchmarks/measured.json docs/benchmarks.md && exit $$status

docs: $(DOCS)  ## the pages, in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -j $(JOBS) -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "$(CURDIR)/docs/_build/html/index.html"

clean:  ## remove what the targets above made, except .venv
	rm -rf demo docs/_build docs/notebooks dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove .venv too
	rm -rf $(VENV)

$(CORE): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}: make PYTHON=...")'
	@echo "building $(VENV) (about a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable .
	@touch $@

$(DEV): $(CORE)
	@$(PIP) install --group test --group lint
	@touch $@

$(BENCH): $(CORE)
	@$(PIP) install --group test --group bench
	@touch $@

$(DOCS): $(CORE)
	@$(PIP) install --group docs
	@touch $@
