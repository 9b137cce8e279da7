# Each goal sets up what it needs: a virtual environment in .venv, and this package in it, editable.
# A change of pyproject.toml installs again; otherwise a second call starts at once. Plain make 3.81 will do.
#
#   make run ARGS="--epochs 3"        options for the example
#   make test ARGS="tests/test_import.py -x" WORKERS=0
#   make test PYTHON=python3.12       the Python to build .venv with (after `make clean`)

BIN := .venv/bin
RUN := .venv/.installed-run
TEST := .venv/.installed-test
DOCS := .venv/.installed-docs
TORCH := .venv/.installed-torch

# The first Python on the path that starts, is at least 3.11 and can make virtual environments.
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
	if "$$p" -c "$(USABLE)" >/dev/null 2>&1; then echo "$$p"; break; fi; done)

# Two test processes, each with a file at a time so that what a file sets up is set up once. On two cores two of them
# are about 1.4 times as fast as one, XLA's threads left as they are; each start costs the 2 s in which JAX is imported.
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help run test test-slow test-real torch lint format types docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: $(RUN) ## Train the thesis' network on CIFAR-10 (on digits where there is none); options in ARGS="..."
	@$(BIN)/python examples/cifar10_lenet.py --fallback-digits $(ARGS)

test: $(TEST) ## Run the tests that take seconds
	@$(PYTEST) $(ARGS)

# pytest's exit code 5 says that no test has this mark, which is no failure here.
test-slow: $(TEST) ## Run the tests that take longer than about 10 s
	@$(PYTEST) -m slow $(ARGS) || [ $$? -eq 5 ]

test-real: $(TEST) ## Run every test that needs the real CIFAR-10
	@$(PYTEST) -m real_data $(ARGS) || [ $$? -eq 5 ]

torch: $(TORCH) ## Install PyTorch for CPUs, which some tests and the benchmarks compare with

lint: $(TEST) ## Check style and format
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

format: $(TEST) ## Mend what lint can mend by itself
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

types: $(TEST) ## Check types
	@$(BIN)/python -m pyright --pythonpath $(BIN)/python

docs: $(DOCS) ## Build the site into site/
	@$(BIN)/python -m sphinx -q -W --keep-going docs site
	@echo "Open site/index.html"

clean: ## Remove .venv, caches and the site; runs/ stays
	rm -rf .venv site build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python="$(PYTHON)"; \
	if [ -z "$$python" ] || ! "$$python" -c "$(USABLE)" >/dev/null 2>&1; then \
		echo "Expected Python 3.11 or newer with venv, got $${python:-none}; install it (on Debian and Ubuntu:" \
			"apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	echo "Setting up .venv with $$python (about a minute the first time) ..."; \
	"$$python" -m venv .venv || { rm -rf .venv; exit 1; }

# -qq: errors are shown, notices are not.
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check

$(RUN): pyproject.toml | $(BIN)/python
	@echo "Installing cnnlab into .venv ..."
	@$(PIP) -e . && touch $@

$(TEST): pyproject.toml | $(BIN)/python
	@echo "Installing cnnlab and its test tools into .venv ..."
	@$(PIP) -e '.[test]' && touch $@ $(RUN)

# PyTorch's own index has the build for CPUs alone, which pip prefers to the much larger one of the same version; where
# that index cannot be reached, pip takes what the usual one has.
$(TORCH): pyproject.toml | $(BIN)/python
	@echo "Installing PyTorch into .venv ..."
	@$(PIP) --retries 0 -e '.[bench]' --extra-index-url https://download.pytorch.org/whl/cpu && touch $@ $(RUN)

$(DOCS): pyproject.toml | $(BIN)/python
	@echo "Installing cnnlab and Sphinx into .venv ..."
	@$(PIP) -e '.[docs]' && touch $@ $(RUN)
