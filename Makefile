# Every target sets up what it needs: a virtual environment with the pinned versions.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread per process: two processes on two cores beat two threads each on them.
export OMP_NUM_THREADS ?= 1
# The theme's advertisement of its successor is no warning about the site.
export NO_MKDOCS_2_WARNING := 1
PARALLEL ?= --numprocesses auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-install coverage lint docs docs-serve notebooks format bench-overhead bench-binning clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(READY) ## Set up the virtual environment

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	touch $@

demo: $(READY) ## Train a spiking CNN with and without WVAT and see how many chips work
	$(BIN)/spikewvat bench demo --rows adam,swa,wvat,momentum --seeds 0

test: $(READY) ## Run the test suite, one process a core
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(READY) ## Run the checks that take minutes
	$(BIN)/python -m pytest -m slow --timeout 3600 $(PARALLEL) --ignore tests/test_install.py

test-install: $(READY) ## Install the wheel with every extra as users would, and run all pages
	$(BIN)/python -m pytest -m slow --timeout 3600 tests/test_install.py

coverage: $(READY) ## Run the tests with line coverage of the package
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term-missing --cov-fail-under=95

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## Build the site in build/site; a broken link or a warning fails
	$(BIN)/mkdocs build

docs-serve: $(READY) ## Show the site on this machine and follow changes
	$(BIN)/mkdocs serve

notebooks: $(READY) ## Run the notebooks of the documentation anew
	$(BIN)/python benchmarks/notebooks.py

format: $(READY) ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-overhead: $(READY) ## Measure what a training step costs beside plain training
	$(BIN)/python benchmarks/speed/steps.py

bench-binning: $(READY) ## Measure event binning beside tonic's
	$(BIN)/python benchmarks/event_binning.py

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
