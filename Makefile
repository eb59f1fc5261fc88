# Everything a developer runs; `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Some containers forbid it, and then each of Ray's processes compiles all that it imports: seconds, every time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow chaos quick docs docs-reference docs-test experiments bench fuzz sbom audit check fix lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv and install hardray with everything its development needs

$(STAMP): requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hardray needs Python 3.11 or newer; set PYTHON=... to one"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

demo: setup  ## the main job on the embedded default: HARD on handwritten digits
	$(BIN)/hardray distill --preset digits

test: setup  ## the tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup  ## the long end-to-end tests that `make test` leaves out
	$(BIN)/python -m pytest -m slow

chaos: setup  ## what is killed, full, broken or lying: every fault, and what is left behind
	$(BIN)/python -m pytest -m chaos

quick: setup  ## the tests that start no Ray cluster
	$(BIN)/python -m pytest -m "not slow" $(filter-out tests/orchestration/,$(wildcard tests/*/)) tests/orchestration/jobs

docs: setup  ## the site of docs/, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-reference: setup  ## docs/reference/ anew from the code: configuration, command line, Python API
	$(BIN)/python -m documentation.reference

docs-test: setup  ## run the commands of docs/ that are marked so; PAGES= names some
	$(BIN)/python -m documentation.run $(PAGES)

experiments: setup  ## the rows of experiments/rows.yaml that have no result yet; MNIST=, CIFAR10= name the data
	$(BIN)/python -m experiments.run

bench: setup  ## ratios of speed, measured side by side; ONLY= names some; CIFAR10=, TIMM_TRAIN= name data and timm's train.py
	$(BIN)/python -m benchmarks.run $(if $(ONLY),--only $(ONLY))

fuzz: setup  ## 10,000 cases against each reader: configurations, data, weights, checkpoints
	HARDRAY_FUZZ_CASES=10000 $(BIN)/python -m pytest tests/security/test_fuzz.py
	@if $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --target build/atheris 'atheris==3.*'; then \
	  PYTHONPATH=build/atheris HARDRAY_FUZZ_CASES=10000 $(BIN)/python -m tests.security.guided_fuzz; \
	else echo "atheris has no wheel for this Python: nothing was guided"; fi

sbom: setup  ## every installed package with its version and licence, as CycloneDX: build/sbom.json
	@mkdir -p build
	$(BIN)/python -m uv tool run --quiet --from 'cyclonedx-bom==7.*' cyclonedx-py environment \
	  --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json $(BIN)/python
	@$(BIN)/python -c "import json; print(len(json.load(open('build/sbom.json'))['components']), 'packages in build/sbom.json')"

audit: setup  ## known vulnerabilities of what is installed, where the registry answers
	$(BIN)/python -m uv tool run --quiet 'pip-audit==2.*' --requirement requirements.txt --no-deps --disable-pip \
	  --progress-spinner off

check: setup  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup  ## format, and mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## compile requirements.txt anew from pyproject.toml
	$(BIN)/python -m uv pip compile --quiet --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	  --python-version 3.11 --extra huggingface --extra corruptions --extra onnx --extra postgres --extra server \
	  --group dev --output-file requirements.txt pyproject.toml

clean:  ## remove what can be made again
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
