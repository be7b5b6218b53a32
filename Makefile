# The two commands are `make run` and `make test`; `make` alone lists all.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --no-input
STAMP := $(VENV)/installed
STAGES ?= task1/xsum task2 task3
NOTEBOOKS := $(wildcard task1 task2 task3 notebooks)
# Some images forbid Python to keep bytecode: each of the tests' many processes would then compile anew all that it
# imports, more than half of its CPU time.
unexport PYTHONDONTWRITEBYTECODE
# Two processes, a core each: a file's tests stay together, since they share models and a notebook's cells a kernel.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q
JOBS ?= 2
SPREAD := -n $(JOBS) --dist loadfile
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=300

.DEFAULT_GOAL := help
.PHONY: help install run test lint unit nbval test-deepspeed bench lab notebooks clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' Makefile | expand -t 24

run: $(STAMP)  ## the course's three stages, headless, on the hardware at hand (PROFILE=… for another profile)
	$(PY) -m summkit run $(STAGES) $(if $(PROFILE),--profile $(PROFILE))

test: lint unit nbval  ## ruff, the static gate, the unit tests, every cell of every notebook; no network

lint: $(STAMP)  ## ruff over code and notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

unit: $(STAMP) lint  ## pytest: the static gate on notebooks and floors first, then the unit tests
	$(PYTEST) tests/static
	$(PYTEST) $(SPREAD) --ignore=tests/static

nbval: $(STAMP) unit  ## nbval over every notebook, in the profile smoke
	SUMMKIT_PROFILE=smoke $(PYTEST) $(SPREAD) $(NBVAL) $(NOTEBOOKS)

test-deepspeed: $(STAMP)  ## installs DeepSpeed into .venv and runs its tests on the CPU: ten minutes, needs g++
	DS_BUILD_OPS=0 $(PIP) --no-compile --no-build-isolation deepspeed==0.19.8
	$(PY) -m pytest -q tests/unit/test_deepspeed.py

bench: $(STAMP)  ## installs TRL into .venv and measures side by side with it and others: two hours on two cores
	$(PIP) --no-compile --no-build-isolation -e '.[bench]'
	$(PY) -m benchmarks --million --from-clone

lab: $(STAMP)  ## JupyterLab
	$(PY) -m jupyterlab

notebooks: $(STAMP)  ## run the stages (without a GPU: profile cpu), then put notebooks and reports where they are committed
	$(PY) -m summkit run $(STAGES) --out runs/committed
	$(PY) -m summkit report --publish $(STAGES:%=runs/committed/%)

install: $(STAMP)  ## .venv with the tested set and this package

# Without build isolation: setuptools is pinned among the requirements, so nothing more is fetched. Not compiled:
# Python compiles the few modules that are imported, and a minute is saved.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1);" \
	       "name another: make PYTHON=python3.12 …" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(VENV) could not be made. On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "Installing requirements.txt into $(VENV): some minutes the first time."
	$(PIP) --no-compile -r requirements.txt
	$(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@

clean:  ## remove .venv, runs/ and caches; downloaded models and data stay
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
