# `make demo` and `make test` need Python 3.11 or newer, pip and make; they set up .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
REFERENCE := .venv-reference/bin
RAY := .venv-ray/bin
DEMO ?= runs/demo
STUDIES ?= runs/why

# In the environment rather than as an option, so that it holds for what builds the package too.
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo studies test test-slow test-browser test-long test-faults test-breaks test-reference test-ray bench lint format clean

help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "resnetlab needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev,hub,track,keras,export,openvino,serve]'
	touch $@

demo: .venv/installed  ## set up, then compare plain and residual nets at depths 8, 20 and 56 on digits
	$(BIN)/resnetlab study --seeds 5 --out $(DEMO)

# Each may be stopped, and the same command resumes it.
studies: .venv/installed  ## repeat the studies of docs/why.md, which takes hours on two cores
	@for recipe in recipes/study/why/*.yaml; do \
		$(BIN)/resnetlab study $$recipe --keep none --out $(STUDIES)/$$(basename $$recipe .yaml) || exit; done

test: .venv/installed-dev  ## set up, then run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/installed-dev  ## run what is left out of the usual tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-long: .venv/installed-dev  ## run what takes long: large networks for real, a C++ compiler, benchmarks, a lost machine
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

# A browser is the system's; nothing but its program is needed, no driver and no Python package.
test-browser: .venv/installed-dev  ## open every kind of page in Chromium, which must be there: screenshots in runs/browser
	@$(BIN)/python -m tests.browser.chromium
	$(BIN)/python -m pytest -m browser tests/browser

test-faults: .venv/installed-dev  ## inject every fault in full and count what holds: about 20 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --out docs/faults.json

# These come without what they ask for: torchvision and timm would take another torch than ours, tritonclient an older
# ml-dtypes. What captum, transformers and tritonclient import beside is there already, or stands in the second line.
.venv-reference/installed: pyproject.toml constraints.txt constraints-reference.txt
	test -x $(REFERENCE)/python || $(PYTHON) -m venv .venv-reference
	$(REFERENCE)/python -m pip install --quiet --editable '.[dev,hub,track,keras,export,openvino,serve]'
	$(REFERENCE)/python -m pip install --quiet --no-deps --constraint constraints-reference.txt torchvision timm captum \
		transformers tritonclient
	$(REFERENCE)/python -m pip install --quiet --constraint constraints-reference.txt tokenizers regex geventhttpclient \
		python-rapidjson urllib3
	touch $@

# In an environment of its own: the other tests run without it.
.venv-ray/installed: pyproject.toml constraints.txt
	test -x $(RAY)/python || $(PYTHON) -m venv .venv-ray
	$(RAY)/python -m pip install --quiet --editable '.[dev,ray]'
	touch $@

test-ray: .venv-ray/installed  ## set up Ray beside, then do studies on clusters of it, with a worker killed
	$(RAY)/python -m pytest -m ray tests/study/test_ray.py

test-breaks: .venv/installed-dev  ## break the code on purpose, a line at a time, and see the tests find each break
	$(BIN)/python -m tests.breaks

test-reference: .venv-reference/installed  ## set up torchvision, timm, transformers, captum and tritonclient beside, then compare
	$(REFERENCE)/python -m pytest -n 2 tests/reference

bench: .venv/installed-dev  ## measure speed beside the usual alternatives: at most 10 minutes on two cores
	$(BIN)/python benchmarks/short.py --out runs/bench

lint: .venv/installed-dev  ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev  ## put the code in the house's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove the environments and everything that was made
	rm -rf .venv .venv-reference .venv-ray runs dist .pytest_cache .mypy_cache .ruff_cache
