# Every target sets up what it needs: on a fresh clone, `make demo` or `make test` is all to type.
#
#   PYTHON=/path/to/python3.11   interpreter for the virtual environment (3.9 to 3.11)
#   VENV=.venv                   where the virtual environment goes

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
VENV ?= .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.lavis_msmedcap_installed
PROJECT := projects/msmedcap

.PHONY: help setup demo test lint format clean distclean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(READY)  ## make the virtual environment (demo, test and lint do it by themselves)

# An interpreter counts when it runs (shims may not), has the right version and can make a virtual
# environment (some systems leave out ensurepip).
$(READY): setup.py pyproject.toml lavis_msmedcap.pth
	@fits='import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))'; \
	if ! $(RUN) -c "$$fits" >/dev/null 2>&1; then \
	  chosen=; \
	  for candidate in $(or $(PYTHON),python3.11 python3.10 python3.9 python3 python); do \
	    if "$$candidate" -c "$$fits" >/dev/null 2>&1; then chosen=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$chosen" ]; then \
	    echo 'No usable Python 3.9, 3.10 or 3.11 (with the venv and ensurepip modules) was found' \
	         '$(if $(PYTHON),as PYTHON=$(PYTHON),on PATH).' \
	         'Install one, or name it: make PYTHON=/path/to/python3.11' >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$chosen"; \
	  "$$chosen" -m venv --clear $(VENV); \
	fi
	$(RUN) -m pip install -e '.[dev]'
	@touch $@

demo: $(READY)  ## train both stages and evaluate, at demonstration scale on a CPU, and write a report
	$(RUN) -m lavis.train --cfg-path $(PROJECT)/pretrain_mixed.yaml
	$(RUN) -m lavis.train --cfg-path $(PROJECT)/caption.yaml
	$(RUN) -m lavis.evaluate --cfg-path $(PROJECT)/evaluate.yaml
	$(RUN) -m lavis_msmedcap.evaluation.phantom_check output/msmedcap/evaluate
	@echo "Report: $$(ls -t output/msmedcap/*/*/report.html | head -n 1)"

test: lint  ## lint, types and tests, those of installation and of whole runs included
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile \
	  -m 'not weights and (install or journey or not slow)'

lint: $(READY)  ## ruff (rules and formatting) and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY)  ## rewrite the code the way `make lint` wants it
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove what tools, tests and builds leave behind
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .test_cache
	find lavis_msmedcap tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## the same and the virtual environment
	rm -rf $(VENV)
