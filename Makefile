# The commands of development; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Some containers set this variable; then every process of Ray compiles all modules that it imports, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow chaos quick docs docs-reference docs-test experiments bench gpu fuzz sbom audit check fix lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv and install hardray with everything for its development

$(STAMP): requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hardray needs Python 3.11 or newer; set PYTHON=... to one"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

demo: setup  ## run HARD on scikit-learn's handwritten digits
	$(BIN)/hardray distill --preset digits

test: quick  ## run the tests
	$(BIN)/python -m pytest -m "not slow" tests/orchestration --ignore tests/orchestration/jobs

test-slow: setup  ## run the long end-to-end tests that `make test` leaves out
	$(BIN)/python -m pytest -m slow

chaos: setup  ## run the fault tests: processes killed, disks filled, files damaged
	$(BIN)/python -m pytest -m chaos

quick: setup  ## run the tests that start no Ray cluster, as many files at once as there are cores
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile $(filter-out tests/orchestration/,$(wildcard tests/*/)) tests/orchestration/jobs

docs: setup  ## build the site of docs/ in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-reference: setup  ## regenerate docs/reference/ from the code: configuration, command line, Python API
	$(BIN)/python -m documentation.reference

docs-test: setup  ## run the marked commands of docs/; PAGES= selects pages
	$(BIN)/python -m documentation.run $(PAGES)

experiments: setup  ## run the rows of experiments/rows.yaml that have no result yet; MNIST=, CIFAR10= name the data
	$(BIN)/python -m experiments.run

bench: setup  ## measure ratios of speed side by side; ONLY= selects some; CIFAR10=, TIMM_TRAIN= name data and timm's train.py
	$(BIN)/python -m benchmarks.run $(if $(ONLY),--only $(ONLY))

# On a machine with a card and without a network, PYTHON names an interpreter that has these.
GPU_NEEDS := import sys; assert sys.version_info >= (3, 11); \
  import jaxtyping, numpy, PIL, pydantic, safetensors, timm, torch, torchvision, yaml

gpu:  ## measure hardray on this machine's card in eight minutes, without a network; OPTIONS=--help lists options
	@if [ '$(origin PYTHON)' = file ] && [ -e $(STAMP) ]; then python=$(BIN)/python; \
	elif $(PYTHON) -c '$(GPU_NEEDS)'; then python=$(PYTHON); \
	else $(MAKE) --no-print-directory setup && python=$(BIN)/python || exit 1; fi; \
	$$python -m benchmarks.gpu $(OPTIONS)

fuzz: setup  ## give 10,000 damaged files to each reader: configurations, data, weights, checkpoints
	HARDRAY_FUZZ_CASES=10000 $(BIN)/python -m pytest tests/security/test_fuzz.py
	@if $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --target build/atheris 'atheris==3.*'; then \
	  PYTHONPATH=build/atheris HARDRAY_FUZZ_CASES=10000 $(BIN)/python -m tests.security.guided_fuzz; \
	else echo "atheris has no wheel for this Python: guided fuzzing was skipped"; fi

sbom: setup  ## list every installed package with version and licence, as CycloneDX, in build/sbom.json
	@mkdir -p build
	$(BIN)/python -m uv tool run --quiet --from 'cyclonedx-bom==7.*' cyclonedx-py environment \
	  --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json $(BIN)/python
	@$(BIN)/python -c "import json; print(len(json.load(open('build/sbom.json'))['components']), 'packages in build/sbom.json')"

audit: setup  ## look for known vulnerabilities of the installed packages, if the registry answers
	$(BIN)/python -m uv tool run --quiet 'pip-audit==2.*' --requirement requirements.txt --no-deps --disable-pip \
	  --progress-spinner off

check: setup  ## check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup  ## format, and apply lint's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## compile requirements.txt from pyproject.toml
	$(BIN)/python -m uv pip compile --quiet --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	  --python-version 3.11 --extra huggingface --extra corruptions --extra onnx --extra postgres --extra server --extra clip \
	  --group dev --output-file requirements.txt pyproject.toml

clean:  ## remove everything that can be made again
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
