# Needs Python 3.11 or later, make and a C compiler; everything else goes into .venv.

PYTHON ?= python3
OLDEST := 3.11
# Tests wait more than they compute: two processes need little more than half the time of one.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGE ?= event-router:dev
OVERLAY ?= production
ARGS ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check
# For every Python and platform at once: what only some of them need carries its marker in the lock.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python $(BIN)/python --no-python-downloads \
	--python-version $(OLDEST) --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help install run demo test lint format typecheck bench bench-relay battery lock image manifests clean

help: ## Show what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv from the hash-locked requirements

$(STAMP): pyproject.toml requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(map(int, "$(OLDEST)".split("."))))' || { \
		echo "event-router needs Python $(OLDEST) or later; name one: make PYTHON=python$(OLDEST)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "Python $$version lacks venv or ensurepip; on Debian or Ubuntu: apt install python$$version-venv" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes --requirement requirements-dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: install ## Run the router on an embedded server (more options: ARGS="...")
	$(BIN)/event-router run --embedded $(ARGS)

demo: install ## Watch the router at work on synthetic traffic
	$(BIN)/event-router demo $(ARGS)

test: lint ## Lint, then run all tests but the battery (ARGS="..." goes to pytest)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: typecheck ## Check style, formatting, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: install ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: install ## Check types with mypy
	$(BIN)/mypy

bench: install ## Measure throughput side by side with the plain loop
	$(BIN)/python -m tests.benchmarks.bench $(ARGS)

bench-relay: install ## Measure how long a live message takes from XADD to its subscriber
	$(BIN)/python -m tests.benchmarks.relay_latency $(ARGS)

battery: install ## Run the long tests (kill, freeze and failover batteries)
	$(BIN)/python -m pytest -m battery $(ARGS)

lock: install ## Lock the dependencies anew, with hashes (newest versions: ARGS=--upgrade)
	$(COMPILE) $(ARGS) --output-file requirements.txt pyproject.toml
	$(COMPILE) $(ARGS) --all-extras --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	$(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(COMPILE) $(ARGS) --constraint requirements-dev.txt --output-file requirements-build.txt -

image: ## Build the container image
	docker build --tag $(IMAGE) --build-arg REVISION="$$(git rev-parse HEAD)" \
		--build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" .

manifests: ## Render the Kubernetes manifests (OVERLAY=development, production or sentinel)
	kubectl kustomize deploy/kubernetes/overlays/$(OVERLAY)

clean: ## Remove .venv and everything generated, but not the embedded server's data
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage
	find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
