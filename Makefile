# The two commands are `make run` and `make test`; `make` alone lists all targets.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --no-input
STAMP := $(VENV)/installed
COURSE := $(VENV)/installed-course
UV := build/uv/installed
STAGES ?= task1/xsum task2 task3
NOTEBOOKS := $(wildcard notebooks task1 task2 task3)
# Some images set this. Each of the many test processes would then compile all that it imports again, which is more than
# half of its CPU time.
unexport PYTHONDONTWRITEBYTECODE
# Two processes with one core each. The tests of a file stay in one process, because they share models, and the cells of
# a notebook share a kernel.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q
JOBS ?= 2
SPREAD := -n $(JOBS) --dist loadfile --no-loadscope-reorder
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=900
RESOLUTION ?= lowest-direct
BOUNDS_PYTHON ?= 3.11
COLAB_PYTHON ?= 3.13
# Other targets run these.
APART := static browser gpu unit/test_course.py unit/test_deepspeed.py

.DEFAULT_GOAL := help
.PHONY: help install run test quick lint static checks unit coverage nbval test-deepspeed test-colab test-bounds bench lab notebooks
.PHONY: test-gpu gpu site test-site test-browser links clean
.PHONY: assignments grade test-course
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' Makefile | expand -t 24

run: $(STAMP)  ## the three core chapters without JupyterLab, on the hardware you have (PROFILE=… for another profile)
	$(PY) -m summkit run $(STAGES) $(if $(PROFILE),--profile $(PROFILE))

test: checks unit nbval  ## everything: lint, static checks, unit tests, every cell of every notebook

quick: lint  ## what fits into 90 seconds: lint, static checks, the fast unit tests
	$(PYTEST) $(SPREAD) -m "not slow" tests

lint: $(STAMP)  ## ruff, types, the order of the packages, and the library's size
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) tools/code_lines.py

static: $(STAMP)  ## pytest over what needs no torch: notebooks, links, documentation, jobs
	$(PYTEST) tests/static

checks: $(STAMP)  ## lint and static at once
	@$(MAKE) --no-print-directory -j $(JOBS) lint static

unit: $(STAMP) checks  ## pytest over the library, its examples in docstrings included
	$(PYTEST) $(SPREAD) $(COVERAGE) --doctest-modules $(APART:%=--ignore=tests/%) tests summkit

coverage: COVERAGE := --cov=summkit --cov-report=term:skip-covered
coverage: unit  ## the same, and which lines of the library it reached: a fifth longer

nbval: $(STAMP) unit  ## nbval over every notebook, with the profile smoke
	SUMMKIT_PROFILE=smoke $(PYTEST) $(SPREAD) $(NBVAL) $(NOTEBOOKS)

test-deepspeed: $(STAMP)  ## install DeepSpeed into .venv and run its tests on the CPU: ten minutes, needs g++
	DS_BUILD_OPS=0 $(PIP) --no-compile --no-build-isolation deepspeed==0.19.8
	$(PY) -m pytest -q tests/unit/test_deepspeed.py

assignments: $(COURSE)  ## student versions of the exercises, in build/course/release (docs/teaching.md)
	$(PY) tools/course.py $(if $(REF),--ref $(REF))

grade: $(COURSE)  ## grade what students handed in (SUBMISSIONS=folder): points as CSV, a feedback page for each
	@test -n '$(SUBMISSIONS)' || { echo "Which submissions? make grade SUBMISSIONS=folder" >&2; exit 2; }
	$(PY) tools/course.py '$(SUBMISSIONS)' $(LIMITS)

test-course: $(COURSE)  ## grade solutions, untouched versions and wrong answers with nbgrader: twenty minutes
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/unit/test_course.py

$(COURSE): $(STAMP)
	$(PIP) --no-compile --no-build-isolation -e '.[course]'
	@touch $@

test-colab: $(UV)  ## every notebook as on Colab, with its install cell, in environments that uv makes: 6 GB of downloads
	build/uv/bin/python tools/colab.py --python $(COLAB_PYTHON) $(COLAB_NOTEBOOKS)

test-bounds: $(UV)  ## the quick tests with the lowest versions that pyproject.toml allows (RESOLUTION=highest: the newest)
	build/uv/bin/uv venv --quiet --clear --seed --python $(BOUNDS_PYTHON) build/$(RESOLUTION)
	build/uv/bin/uv pip install --quiet --python build/$(RESOLUTION)/bin/python --resolution $(RESOLUTION) -e '.[test]'
	OMP_NUM_THREADS=1 build/$(RESOLUTION)/bin/python -m pytest -q $(SPREAD) -m "not slow" tests

test-gpu: $(STAMP)  ## on a machine with a GPU: training, answers, memory and every notebook on it
	SUMMKIT_TEST_GPU=1 $(PYTEST) tests/gpu

# Each is ended if it takes longer. A benchmark that was ended goes on with the next call.
gpu: $(STAMP)  ## on a machine with a GPU: its tests, then its benchmark, each in ten minutes at most
	timeout -s INT 600 $(MAKE) test-gpu; tested=$$?; timeout -s INT 600 $(PY) -m benchmarks gpu --minutes 8 && exit $$tested

bench: $(STAMP)  ## install TRL into .venv and run all benchmarks: two hours on two cores
	$(PIP) --no-compile --no-build-isolation -e '.[bench]'
	$(PY) -m benchmarks --million --from-clone

lab: $(STAMP)  ## JupyterLab
	$(PY) -m jupyterlab --config=tools/lab_config.py

notebooks: $(STAMP)  ## run the chapters, then put notebooks and reports where they are committed
	$(PY) -m summkit run $(STAGES) --out runs/committed --overwrite
	$(PY) tools/publish.py $(STAGES:%=runs/committed/%)

site: $(STAMP)  ## install Sphinx into .venv and make the website of these pages: build/site/index.html
	$(PIP) --quiet --no-compile --no-build-isolation -e '.[docs]'
	rm -rf build/site
	$(PY) -B -m sphinx -E -W --keep-going -q -c docs -d build/doctrees . build/site

test-site: site  ## check the website's links, and open each page in a headless Chromium (on Debian: apt install chromium)
	$(PY) -B tools/check_site.py

test-browser: $(STAMP)  ## run, save and open pages again in JupyterLab and a headless Chromium (on Debian: apt install chromium)
	$(PIP) --quiet --no-compile --no-build-isolation -e '.[browser]'
	SUMMKIT_TEST_BROWSER=1 OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/browser

links: $(STAMP)  ## write every link to this repository again (REPO=owner/name for a fork)
	$(PY) tools/links.py $(REPO)

install: $(STAMP)  ## .venv with the tested set and this package

# Without build isolation, because setuptools is pinned among the requirements: nothing more is fetched. Not compiled,
# because Python compiles the few modules that are imported: this saves a minute.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1)." \
	       "Name another one: make PYTHON=python3.12 …" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Cannot make $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "Installing requirements.txt into $(VENV). The first time takes some minutes."
	$(PIP) --no-compile -r requirements.txt
	$(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@

# uv alone: with the tested set beside it, the environments that it makes fill the disk of a small machine.
$(UV):
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --disable-pip-version-check --no-input --quiet uv
	@touch $@

clean:  ## remove .venv, runs/ and caches; downloaded models and data stay
	rm -rf $(VENV) runs build *.egg-info .coverage .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
