# `make run` and `make test` are all a newcomer needs; each sets up what it uses. Paths are relative, so the project may live anywhere.
SHELL := /bin/sh
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help run test check all venv data deps format lint types imports deaths fast bench costumes docs lock clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

run: .venv/.run data ## supervise the example jobs of config.yaml in the foreground
	@cat scripts/welcome.txt
	@MAINSTAY_LOG_FORMAT=console exec .venv/bin/mainstay run

test: venv deps data lint ## everything: the fast checks, then all tests (real processes, Prometheus, a machine with systemd)
	$(PY) -m pytest -n 3 --dist loadfile $(ARGS)

check: venv lint fast ## the fast checks: format, lint, types, import contracts, the tests of the core

all: check test docs ## check, test and docs

venv: .venv/.done ## the virtual environment in .venv, exactly as locked, with all that checks and tests need

.venv/.run: requirements.lock pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh run

.venv/.done: requirements-dev.lock pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh

data: ## the data that the example jobs work on, as data/source
	@sh scripts/data.sh

deps: ## Debian's packages that the tests of real parts use (as root; otherwise says which tests will skip)
	@sh scripts/deps.sh

lint: venv
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy supervisor jobs scripts
	.venv/bin/lint-imports

deaths: venv ## the bench of deaths: every kind of end in every Python of this machine, and how it is judged, as a table
	@$(PY) tests/e2e/deathbench.py $(ARGS)

fast: venv
	$(PY) -m pytest tests/core tests/config

format: venv ## rewrite the code as `make check` wants it
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: venv ## measure what we promise; the figures go to the terminal
	@for file in bench/bench_*.py; do echo "== $$file"; $(PY) "$$file" || exit 1; done

costumes: venv ## one bug in fifty costumes in every CPython here: outcome, cycle, depth, memory, time, as a table (minutes)
	@$(PY) tests/costumes/wardrobe.py $(ARGS)

docs: venv ## write anew the pages that are generated from the code
	@$(PY) scripts/docs.py
	@$(PY) scripts/monitoring.py

lock: venv ## newest versions that pyproject.toml allows, with hashes, into requirements*.lock
	$(PY) scripts/lock.py

clean: ## remove what can be made again (var/, the history of your own runs, stays)
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
