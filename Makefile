# Everything here works on a fresh clone with Python (3.11 to 3.13) and make; the first target that needs the
# environment makes it. PYTHON names another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
OLDEST = $(VENV)/oldest
INSTALLED = $(VENV)/.installed
BENCH = $(VENV)/bench
# How many tasks wait, and how many seconds pass between two looks, for bench-waiting and bench-waiting-oldest
SIZES ?= 1 10 100 500 2000 10000
INTERVAL ?= 5
# How many jobs are watched, for bench-watching
JOBS ?= 1 10 60
# How many random lives of a task, for chaos and dialects
SEEDS ?= 200
# Which part of the lives in a virtual world is lived, for explore
PART ?= 1
# How many processes run tests beside each other: more than there are cores, as most tests wait
WORKERS ?= 4
BESIDE = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# What decides about success, failure and a second load is covered entirely
ENTIRELY = model vocabulary answers jobs_api verdict submission
empty :=
comma := ,
# With an empty value, constraints keeps the pins that there are and adds those that are missing
UPGRADE ?= --upgrade

.PHONY: help demo up quick test test-oldest test-live lint types pages docs build check clean constraints
.PHONY: bench-waiting bench-waiting-oldest bench-watching bench-logs chaos dialects explore mutations

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

$(INSTALLED): pyproject.toml constraints/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints/dev.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints/dev.txt \
		--group test --group lint --group docs --group build --editable .
	touch $@

demo: $(INSTALLED) ## Run an example DAG in real Airflow against the simulator (FAIL='Load sales' lets it fail)
	@$(BIN)/python demo.py $(if $(FAIL),--fail '$(FAIL)') $(if $(DAG),--dag $(DAG)) $(if $(DIALECT),--dialect $(DIALECT))

up: $(INSTALLED) ## Run a whole Airflow against the simulator, to look at in a browser, until Ctrl-C (PORT=8080)
	@$(BIN)/python -B up.py $(if $(PORT),--port $(PORT))

chaos: $(INSTALLED) ## Live random lives of a task, with faults and deaths (SEEDS=2000 lives more)
	@$(BIN)/python -m tests.processes.chaos --seeds $(SEEDS)

dialects: $(INSTALLED) ## Live tasks against random dialects of the API (SEEDS=2000 lives more)
	@$(BIN)/python -m tests.processes.dialects --seeds $(SEEDS)

explore: $(INSTALLED) ## Live every death of a task in a virtual world (PART=0.1 lives less), and the mutations
	@$(BIN)/python -m tests.pure.explore --part $(PART)
	@$(MAKE) --no-print-directory mutations

mutations: $(INSTALLED) ## Take each rule of a life out of the package: some virtual life has to notice
	@$(BIN)/python -m tests.pure.mutations

quick: $(INSTALLED) ## Run the tests that need no Airflow, in about two minutes
	$(BIN)/python -m pytest --numprocesses $(WORKERS) tests/pure tests/http

test: $(INSTALLED) ## Run all tests, in a quarter of an hour; what decides must be covered entirely, without Airflow
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --cov --cov-report= tests/pure tests/http
	$(BIN)/python -m coverage report --fail-under=100 --show-missing \
		--include='$(subst $(empty) ,$(comma),$(ENTIRELY:%=*/airflow_provider_timextender/%.py))'
	$(BIN)/python -m pytest $(BESIDE) -m "not live" tests/airflow tests/processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m live

test-live: $(INSTALLED) ## Run the tests in a live Airflow only (LIVE_TASKS=500 lets as many tasks wait)
	$(BIN)/python -m pytest $(BESIDE) -m live

test-oldest: ## Run all tests on the oldest Airflow, which needs Python 3.11 or 3.12
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		$(MAKE) --no-print-directory $(OLDEST)/.installed && $(OLDEST)/bin/python -m pytest $(BESIDE); \
	else \
		echo "SKIPPED: Airflow 2.11 does not run on $$($(PYTHON) --version); name an older one: make test-oldest PYTHON=python3.12"; \
	fi

$(OLDEST)/.installed: pyproject.toml constraints/oldest.txt $(INSTALLED)
	$(PYTHON) -m venv --clear $(OLDEST)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(OLDEST)/bin/python --constraint constraints/oldest.txt \
		--group test --editable . apache-airflow
	touch $@

lint: $(INSTALLED) ## Check style, format and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

pages: $(INSTALLED) ## Write what the pages show of the code, and docs/openapi.yaml
	$(BIN)/python -m docs.snippets

docs: $(INSTALLED) ## Build the documentation; warnings are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env -b html docs docs/_build/html

build: $(INSTALLED) ## Build the wheel and the sdist, and install the wheel in a clean environment
	rm -rf dist
	$(BIN)/python -m build --installer uv --outdir dist
	$(PYTHON) -m venv --clear $(VENV)/clean
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(VENV)/clean/bin/python --constraint constraints/dev.txt dist/*.whl
	AIRFLOW_HOME=$(CURDIR)/$(VENV)/clean/home $(VENV)/clean/bin/airflow providers get airflow-provider-timextender --output yaml

check: lint types test mutations test-oldest docs build ## All of the above, without campaigns and benchmarks

$(BENCH)/.installed: $(INSTALLED) constraints/bench.txt
	$(PYTHON) -m venv --clear $(BENCH)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BENCH)/bin/python --constraint constraints/bench.txt \
		--group bench --editable .
	touch $@

bench-waiting: $(BENCH)/.installed ## Compare what waiting costs with other providers (SIZES='1 100', INTERVAL=5)
	@$(BENCH)/bin/python benchmarks/waiting.py --sizes $(SIZES) --interval $(INTERVAL)

bench-waiting-oldest: $(OLDEST)/.installed ## The same on the oldest Airflow, with the providers that it brings
	@$(OLDEST)/bin/python benchmarks/waiting.py --sizes $(SIZES) --interval $(INTERVAL)

bench-watching: $(INSTALLED) ## Show what it costs to watch jobs with large logs (JOBS='1 60')
	@$(BIN)/python benchmarks/watching.py --jobs $(JOBS)

bench-logs: $(BENCH)/.installed ## Compare what it costs to read logs of 1 MB to 1 GB, and count what tasks read of large ones
	@$(BENCH)/bin/python benchmarks/logs.py
	@$(BENCH)/bin/python benchmarks/large_logs.py

constraints: $(INSTALLED) ## Pin the newest versions that fit, for all supported Pythons and both ends of Airflow
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate $(UPGRADE) \
		--group test --group lint --group docs --group build \
		--output-file constraints/dev.txt pyproject.toml constraints/uv.in
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate $(UPGRADE) \
		--group bench --constraint constraints/dev.txt \
		--output-file constraints/bench.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate $(UPGRADE) \
		--group test --output-file constraints/oldest.txt pyproject.toml constraints/oldest.in

clean: ## Remove what the targets made
	rm -rf $(VENV) dist docs/_build .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
