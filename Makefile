# `make` alone lists the commands. Everything is set up into .venv; nothing else is installed.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do "$$p" -c 'import sys; sys.exit(not (3,11)<=sys.version_info[:2]<=(3,12))' >/dev/null 2>&1 && { echo $$p; break; }; done)
PYTHON312 ?= $(shell for p in python3.12 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.12*/bin/python; do "$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3,12))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help setup demo test test-kafka check lint bench bench-peers clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

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

test-kafka: setup ## run the tests that use Kafka on a real broker; needs Java 17 and Maven
	@if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then \
	echo "SKIPPED, nothing was tested on a real Kafka: this needs java (17 or later) and mvn; \`make test\` runs the same tests on librdkafka's mock cluster" >&2; \
	else $(MAKE) --no-print-directory .kafka/.ready && $(BIN)/python tests/kafka/run.py; fi

.kafka/.ready: tests/kafka/pom.xml
	@echo "fetching Apache Kafka into .kafka/libs …"
	@rm -rf .kafka && mkdir -p .kafka
	@mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka/libs
	@touch $@

lint: setup ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint test ## what CI runs

bench: setup ## print the numbers: every benchmark, as ratios to the peers that `make bench-peers` installed
	@for b in $$($(BIN)/python -m bench --names); do $(BIN)/python -m bench $$b --json || exit 1; done

bench-peers: ## set the peers up to be measured against, each in an environment of its own under .bench/
	@test -n "$(PYTHON)" || { echo "Penstock needs Python 3.11 or 3.12; install one, or say which: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@mkdir -p .bench
	@test -e .bench/hftbacktest/.ready || { echo "hftbacktest …"; $(PYTHON) -m venv .bench/hftbacktest && .bench/hftbacktest/bin/python -m pip install -q --disable-pip-version-check 'hftbacktest==2.4.*' && touch .bench/hftbacktest/.ready; }
	@test -e .bench/vectorbt/.ready || { echo "vectorbt …"; $(PYTHON) -m venv .bench/vectorbt && .bench/vectorbt/bin/python -m pip install -q --disable-pip-version-check 'vectorbt==1.0.*' 'plotly<6' && touch .bench/vectorbt/.ready; }
	@test -e .bench/kafka/.ready || { echo "bytewax[kafka] and orjson …"; $(PYTHON) -m venv .bench/kafka && .bench/kafka/bin/python -m pip install -q --disable-pip-version-check 'bytewax[kafka]==0.21.1' 'confluent-kafka>=2.16' orjson && touch .bench/kafka/.ready; }
	@test -e .bench/quix/.ready || { echo "Quix Streams …"; $(PYTHON) -m venv .bench/quix && .bench/quix/bin/python -m pip install -q --disable-pip-version-check 'quixstreams==3.*' && touch .bench/quix/.ready; }
	@if test -z "$(PYTHON312)"; then echo "NautilusTrader 1.231 is left out: it needs Python 3.12 and there is none; install one, or say which: make bench-peers PYTHON312=/path/to/python3.12"; \
	elif ! test -e .bench/nautilus/.ready; then echo "NautilusTrader …"; $(PYTHON312) -m venv .bench/nautilus && .bench/nautilus/bin/python -m pip install -q --disable-pip-version-check nautilus_trader==1.231 && touch .bench/nautilus/.ready; fi

clean: ## remove what was set up and made
	rm -rf .venv .bench .kafka .kernels .penstock build *.egg-info
