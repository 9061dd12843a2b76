# Everything a developer runs. Each target sets up what it needs, from locked and hashed requirements.

PYTHON ?= python3
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
DEMO_VENV := .venv-demo
DEMO_LOCK := requirements-demo.lock

# A stamp's name says what was installed where: another lock, interpreter or folder makes the environment anew.
key = $(shell { cat $(1) pyproject.toml .ci/environment; pwd; $(PYTHON) -VV; } 2>&1 | sha256sum | cut -c1-16)
STAMP := $(VENV)/.installed-$(call key,$(LOCK))
DEMO_STAMP := $(DEMO_VENV)/.installed-$(call key,$(DEMO_LOCK))
# A developer's environment has all that the demo needs; without one, the demo gets its own, of less than two thirds.
DEMO := $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO_STAMP))

.PHONY: help demo test fuzz faults brokers soak bench check fmt lock config sbom clean
help:  ## show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: $(DEMO)  ## watch a simulated fleet: broker, gateway and database of its own, in .demo (SECONDS=20 ends it)
	@$(dir $<)bin/gateway demo $(if $(SECONDS),--seconds $(SECONDS))

test: $(STAMP)  ## run all tests, twice as many at a time as there are cores (ARGS="tests/unit -k lock" for some of them)
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not faults and not brokers" $(ARGS)

fuzz: $(STAMP)  ## fuzz all parsers for an hour (MINUTES=10; TARGET=payloads: one file of tests/fuzz; SEED=5: the first seed)
	@GATEWAY_FUZZ_MINUTES=$(or $(MINUTES),60) $(if $(SEED),GATEWAY_FUZZ_SEED=$(SEED)) \
		$(BIN)/python -m pytest $(if $(TARGET),tests/fuzz/test_$(TARGET).py,tests/fuzz) $(ARGS)

faults: $(STAMP)  ## the fault matrix, one combination a fault (GATEWAY_FAULTS=all: all of them, for hours)
	@$(BIN)/python -m pytest tests/faults $(ARGS)

brokers: $(STAMP)  ## the broker matrix, after tests/brokers/install (GATEWAY_BROKERS=mosquitto,nats: some of them)
	@$(BIN)/python -m pytest tests/brokers $(ARGS)

soak: $(STAMP)  ## half the top speed with a fault every 20 s, for half an hour (MINUTES=5: shorter)
	@GATEWAY_SOAK_MINUTES=$(or $(MINUTES),30) $(BIN)/python -m pytest tests/faults/test_soak.py $(ARGS)

bench: $(STAMP)  ## measure on this machine, with servers of its own (ARGS="--quick --scenario drain --json")
	@$(BIN)/python -m tests.benchmarks $(ARGS)

check: $(STAMP)  ## ruff, mypy --strict, rules of imports and names, drift of generated files and the lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit/test_layout.py tests/unit/test_repository.py

fmt: $(STAMP)  ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

config: $(STAMP)  ## write config/gateway.toml anew from the settings
	$(BIN)/gateway config sample > config/gateway.toml.new
	mv config/gateway.toml.new config/gateway.toml

sbom: $(STAMP)  ## write sbom.cdx.json: what the daemon is made of, from its lock (CycloneDX)
	$(BIN)/python -m tests.support.sbom > sbom.cdx.json

COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--all-build-deps --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options $(UPGRADE)
lock: $(STAMP)  ## lock the requirements anew (UPGRADE=--upgrade takes the newest of all)
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra demo --constraint requirements.lock --output-file $(DEMO_LOCK) pyproject.toml
	$(COMPILE) --extra demo --extra dev --constraint $(DEMO_LOCK) --output-file $(LOCK) pyproject.toml

clean:  ## remove the environment, the demo and all caches
	rm -rf sbom.cdx.json $(VENV) $(DEMO_VENV) .demo .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP):
	@.ci/environment $(VENV) $(LOCK) $(PYTHON)
	@touch $@

$(DEMO_STAMP):
	@.ci/environment $(DEMO_VENV) $(DEMO_LOCK) $(PYTHON)
	@touch $@
