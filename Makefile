# pt-tools: `make` lists the goals; every recipe adds its own (scripts/recipes).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PYTHON ?= python3
export PATH := $(abspath $(VENV))/bin:$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
INSTALLED := $(VENV)/.installed

SCALE ?= tiny
SEED ?= 0

# Words end at blanks in make, whatever quotes are around them.
empty :=
BLANK := $(if $(word 2,$(CURDIR)),$(CURDIR),$(firstword $(foreach v,RUNS DATA MODEL VENV,$(if $(word 2,$($(v))),$(v)))))
ifneq ($(BLANK),$(empty))
  $(error a path with a blank cannot be used here: $(BLANK))
endif

.PHONY: help test test-slow faults bench man install
help:
	@sed -n 's/^# //p' Makefile scripts/recipes/*.mk | grep '^make '

install: $(INSTALLED)
$(INSTALLED): pyproject.toml constraints.txt scripts/install
	PYTHON=$(PYTHON) scripts/install $(VENV)

# make test                    the tests (minutes)
test: $(INSTALLED)
	OMP_NUM_THREADS=1 pytest -q -n 2 --dist loadfile -m "not slow"

# make test-slow               every resume point, long property tests, whole recipes
test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 pytest -q -m slow

# make faults                  kill -9 and signals at random moments; writes faults/results.json (FAULTS=recipe for `make tulu3`)
FAULTS ?=
faults: $(INSTALLED)
	python scripts/faults.py $(FAULTS)

# make bench                   beside TRL and transformers in one run; writes bench/results.json (BENCH=part)
BENCH ?=
bench: $(INSTALLED)
	python scripts/bench/bench.py $(BENCH)

# make man                     man pages from the commands
man: $(INSTALLED)
	python scripts/man.py man

include scripts/recipes/tulu3.mk
include scripts/recipes/mimo.mk
