# What a person runs; continuous integration runs the same targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := dev

.DEFAULT_GOAL := help
.PHONY: help venv demo test soak image-test conformance check format bench bench-peers constraints clean

help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## create .venv with every extra (again only when the dependencies change)
	@:

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "tickserve needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another interpreter, for example: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.12" >&2; \
		exit 2; }
	@echo "Installing tickserve and its dependencies into $(VENV) (a minute or two, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: venv ## train, serve, trade, promote, measure: the whole way in 90 seconds
	@$(BIN)/tickserve demo $(ARGS)

test: venv ## run the test suite
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone and not image" $(ARGS) || test $$? -eq 5
	@$(BIN)/python -m pytest -m alone $(ARGS) || test $$? -eq 5

soak: venv ## the long forms of the fault tests, then an hour of mixed load (two hours in all)
	@$(BIN)/python -m pytest tests/faults --long $(ARGS)
	@$(BIN)/python -m benchmarks kill_storm --seconds 600
	@$(BIN)/python -m benchmarks reload_soak
	@$(BIN)/python -m benchmarks soak --seconds 3600

image-test: venv ## make the image's root in an empty Debian, and run the daemon in it (as root; minutes)
	@$(BIN)/python -m pytest tests/container -m image $(ARGS)

conformance: venv ## bots in Node and C against the daemon; installs what they need where it can
	@tests/conformance/install
	@$(BIN)/python -m pytest tests/conformance $(ARGS)

check: venv ## lint, format, types and import contracts
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --check --no-cache
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: venv ## apply the formatter and the safe lint fixes
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: venv ## measure latency and throughput beside a bare ZeroMQ echo
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: venv ## install other model servers, each into its own environment, and compare
	@for peer in fastapi mlserver bentoml litserve; do \
		test -e .bench-peers/$$peer/.installed && continue; \
		echo "Installing $$peer ..."; \
		$(PYTHON) -m venv .bench-peers/$$peer && \
		.bench-peers/$$peer/bin/pip install -q --disable-pip-version-check \
			-r benchmarks/peers/$$peer/requirements.txt && \
		touch .bench-peers/$$peer/.installed || echo "$$peer could not be installed" >&2; \
	done
	@$(BIN)/python -m benchmarks.peers $(ARGS)

constraints: ## rewrite constraints.txt from the newest versions, in a fresh environment
	@PYTHON='$(PYTHON)' .ci/constraints '.[$(EXTRAS)]'

clean: ## remove .venv, the demo's files and all caches
	rm -rf $(VENV) .bench-peers .demo tests/conformance/node_modules build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf tests/conformance/.node tests/conformance/unavailable
