# `make` alone lists the targets. Everything runs from .venv, which the first target that needs it creates.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
# Without bytecode each of the many worker processes compiles the package again.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# pip, with every wheel's SHA-256 checked; its argument names the extras
INSTALL := $(BIN)/python .ci/install.py
RUN := .venv/.installed
DEV := .venv/.installed-dev
BENCH := .venv/.installed-bench
CLIENTS := .venv-clients/.installed
PEERS := .venv-peers/.installed
TRAINERS := .venv-trainers/.installed
PINS := pyproject.toml constraints.txt
DEMO := examples/01_digits/pipeline.yaml

.PHONY: help install install-dev install-e2e install-clients install-peers install-trainers demo serve check test unit integration chaos bench examples fix clean

help: ## list these targets
	@awk -F':[^#]*## ' '/^[a-z-]+:[^#]*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

# --- installing: a stamp is newer than what it was made from, so a second run installs nothing -------------------------

install: $(RUN) ## what running needs, into .venv
install-dev: $(DEV) ## the same plus test servers, linters and type checker

install-e2e: ## Debian's Chromium, as root: the tests then open a run's page in it
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium

install-clients: $(CLIENTS) ## other people's clients, into .venv-clients: the tests ask an endpoint with each

$(CLIENTS): tests/clients/pins.txt | $(BIN)/python
	$(BIN)/python -m venv .venv-clients
	.venv-clients/bin/python -m pip --disable-pip-version-check install -q --require-hashes --only-binary :all: \
	  -r tests/clients/pins.txt
	@touch $@

install-peers: $(PEERS) ## for make bench: servers that cannot live beside raypipe (BentoML), into .venv-peers
install-trainers: $(TRAINERS) ## for make bench: Keras and Lightning, to train beside, into .venv-trainers

$(BIN)/python:
	@python=""; \
	for name in python3 python3.13 python3.12 python3.11 python3.10; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then python="$$name"; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "raypipe needs Python 3.10 or newer; none was found on PATH" >&2; exit 1; fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  package="$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "$$python cannot create a virtual environment; installing $$package"; \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$$package"; \
	  else \
	    echo "$$python cannot create a virtual environment. Run this, then make again:" >&2; \
	    echo "  sudo apt-get update && sudo apt-get install -y $$package" >&2; exit 1; \
	  fi; \
	fi; \
	"$$python" -m venv .venv

$(RUN): $(PINS) | $(BIN)/python
	$(INSTALL)
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	$(INSTALL) dev
	@touch $(RUN) $@

$(BENCH): $(PINS) | $(BIN)/python
	$(INSTALL) dev,bench,keras
	@touch $(RUN) $(DEV) $@

$(PEERS): tests/bench/peers.txt | $(BIN)/python
	$(BIN)/python -m venv .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check install --only-binary :all: -c $< \
	  bentoml torch safetensors orjson uvloop
	@touch $@

$(TRAINERS): tests/bench/trainers.txt | $(BIN)/python
	$(BIN)/python -m venv .venv-trainers
	.venv-trainers/bin/python -m pip --disable-pip-version-check install --only-binary :all: -c $< keras lightning torch
	@touch $@

# --- running ---------------------------------------------------------------------------------------------------------

demo: $(RUN) ## train, judge, register and serve handwritten digits, then stop
	$(BIN)/raypipe run $(DEMO) --no-wait

serve: $(RUN) ## the same, and keep the endpoint up until Ctrl-C
	$(BIN)/raypipe run $(DEMO)

# --- checking --------------------------------------------------------------------------------------------------------

check: $(DEV) ## format, lint, types, imports, unit tests; before every commit (a minute and a half on two cores)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@# pyright keeps one core busy, so it runs beside the tests; with more room for young objects it needs a fifth less.
	@# The tests give way to it (nice): they can use its core afterwards, and it could not use theirs.
	NODE_OPTIONS="--max-semi-space-size=128 --v8-pool-size=1" $(BIN)/pyright & types=$$!; failed=0; \
	nice $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile -m 'not thorough' tests/unit || failed=$$?; \
	wait $$types && exit $$failed

unit: $(DEV) ## unit tests only
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile tests/unit

integration: $(DEV) ## stories on real Ray and a real S3 server, loopback only
	@# what needs no Ray mostly waits, so it runs beside what does, and its report comes last; then the unit tests that
	@# `make check` leaves out, and those that draw examples draw as many as they name, where it draws three of ten
	@log="$$(mktemp)"; trap 'rm -f "$$log"' EXIT; failed=0; \
	{ status=0; $(BIN)/python -m pytest -m 'not ray' tests/integration || status=$$?; \
	  $(BIN)/python -m pytest -m 'thorough or hypothesis' --hypothesis-profile thorough tests/unit || status=$$?; \
	  exit $$status; } >"$$log" 2>&1 & beside=$$!; \
	$(BIN)/python -m pytest -m ray tests/integration || failed=$$?; \
	wait $$beside || failed=$$?; cat "$$log"; exit $$failed

test: check integration ## check, then integration

chaos: $(DEV) ## a fault goes in, a promise is checked
	$(BIN)/python -m pytest tests/chaos

bench: $(BENCH) ## numbers with units as JSON lines; the machine should be idle
	@for file in tests/bench/bench_*.py; do echo "# $$file" >&2; $(BIN)/python "$$file"; done

examples: $(DEV) ## run every example's run.sh
	@for file in examples/*/run.sh; do echo "# $$file" >&2; PATH="$(CURDIR)/$(BIN):$$PATH" bash "$$file"; done

fix: $(DEV) ## format, and repair what lint can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and its like, and every cache (local runs in .raypipe stay)
	rm -rf .venv .venv-clients .venv-peers .venv-trainers .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
