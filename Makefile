# Everything a developer runs. Each target sets up what it needs in .venv, from locked and hashed requirements.

PYTHON ?= python3
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock

# The stamp's name says what was installed where: another lock, interpreter or folder makes the environment anew.
KEY := $(shell { cat $(LOCK) pyproject.toml; pwd; $(PYTHON) -VV; } 2>&1 | sha256sum | cut -c1-16)
STAMP := $(VENV)/.installed-$(KEY)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: help demo test faults soak bench check fmt lock config clean
help:  ## show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: $(STAMP)  ## watch a simulated fleet: broker, gateway and database of its own, in .demo (SECONDS=20 ends it)
	@$(BIN)/gateway demo $(if $(SECONDS),--seconds $(SECONDS))

test: $(STAMP)  ## run all tests (ARGS="tests/unit -k lock" for some of them)
	@$(BIN)/python -m pytest -m "not faults" $(ARGS)

faults: $(STAMP)  ## the fault matrix, one combination a fault (GATEWAY_FAULTS=all: all of them, for hours)
	@$(BIN)/python -m pytest tests/faults $(ARGS)

soak: $(STAMP)  ## half the top speed with a fault every 20 s, for half an hour (MINUTES=5: shorter)
	@GATEWAY_SOAK_MINUTES=$(or $(MINUTES),30) $(BIN)/python -m pytest tests/faults/test_soak.py $(ARGS)

bench: $(STAMP)  ## measure on this machine, with servers of its own (ARGS="--quick --scenario drain --json")
	@$(BIN)/python -m tests.support.bench $(ARGS)

check: $(STAMP)  ## ruff, mypy --strict, import rules, drift of generated files and the lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit/test_repository.py

fmt: $(STAMP)  ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

config: $(STAMP)  ## write config/gateway.toml anew from the settings
	$(BIN)/gateway config sample > config/gateway.toml.new
	mv config/gateway.toml.new config/gateway.toml

COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--all-build-deps --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options $(UPGRADE)
lock: $(STAMP)  ## lock the requirements anew (UPGRADE=--upgrade takes the newest of all)
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra demo --extra dev --constraint requirements.lock --output-file $(LOCK) pyproject.toml

clean:  ## remove the environment, the demo and all caches
	rm -rf $(VENV) .demo .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "$(PYTHON) is missing or older than 3.11: name a newer one, for instance make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) -V)"
	@rm -rf $(VENV)
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -c 'import pip, venv' 2>/dev/null; then \
		$(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet \
			--disable-pip-version-check --require-hashes --no-deps --requirement $(LOCK); \
	else echo "$(PYTHON) has neither the module ensurepip nor pip: install the package python3-venv"; exit 1; fi
	@$(PIP) install --quiet --require-hashes --no-deps --requirement $(LOCK)
	@$(PIP) check
	@$(PIP) install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@
