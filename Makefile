# Needs Python 3.11 or later, make and a C compiler; everything else goes into .venv.

PYTHON ?= python3
# Tests wait more than they compute: two processes need little more than half the time of one.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGE ?= event-router:dev
OVERLAY ?= production
ARGS ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/python -m piptools compile --quiet --generate-hashes \
	--allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	--no-emit-options

# pip-compile drops the environment markers of extras; without them the lock fails where no wheel exists.
define KEEP_MARKERS
import pathlib, re, tomllib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
lock = pathlib.Path("requirements-dev.txt")
text = lock.read_text()
for requirement in project["optional-dependencies"]["embedded"]:
    name, marker = re.match(r"([\w-]+)[^;]*; (.*)", requirement).groups()
    text = re.sub(rf"(?m)^({name}==\S+) \\$$", lambda pin: f"{pin[1]} ; {marker} \\", text)
lock.write_text(text)
endef
export KEEP_MARKERS

.DEFAULT_GOAL := help
.PHONY: help install run demo test lint format typecheck bench bench-relay battery lock image manifests clean

help: ## Show what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv from the hash-locked requirements

$(STAMP): pyproject.toml requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "event-router needs Python 3.11 or later; name one: make PYTHON=python3.11" >&2; exit 1; }
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
	$(COMPILE) $(ARGS) --extra embedded --extra otel --extra dev --constraint requirements.txt \
		--output-file requirements-dev.txt pyproject.toml
	$(BIN)/python -c "$$KEEP_MARKERS"
	$(COMPILE) $(ARGS) --only-build-deps --build-deps-for wheel --constraint requirements-dev.txt \
		--output-file requirements-build.txt pyproject.toml

image: ## Build the container image
	docker build --tag $(IMAGE) --build-arg REVISION="$$(git rev-parse HEAD)" \
		--build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" .

manifests: ## Render the Kubernetes manifests (OVERLAY=development, production or sentinel)
	kubectl kustomize deploy/kubernetes/overlays/$(OVERLAY)

clean: ## Remove .venv and everything generated, but not the embedded server's data
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage
	find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
