# `make` alone lists the commands. Everything is set up into .venv; nothing else is installed.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do "$$p" -c 'import sys; sys.exit(not (3,11)<=sys.version_info[:2]<=(3,12))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help setup demo test check lint bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: .venv/.ready ## make .venv with everything in it

.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Penstock needs Python 3.11 or 3.12; install one, or say which: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up .venv with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## replay a simulated day of 20 symbols into the embedded ClickHouse and write a report
	@$(BIN)/penstock demo

test: setup ## run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint test ## what CI runs

bench: setup ## print the numbers: every benchmark, as ratios
	@for b in $$(ls bench/*.py | xargs -n1 basename | sed 's/\.py//' | grep -v '^_'); do $(BIN)/python -m bench.$$b --json; done

clean: ## remove what was set up and made
	rm -rf .venv .kernels .penstock build *.egg-info
