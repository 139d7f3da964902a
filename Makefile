# Everything here sets itself up: a fresh clone needs Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help quickstart dashboard gpu screenshots test test-slow test-all check format images sbom clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 14

quickstart: .venv/installed  ## run studies/quickstart.yaml; print its table and three figures
	$(BIN)/smoe-ray run studies/quickstart.yaml --out out
	$(BIN)/smoe-ray figure out quickstart --to out/figures \
	  --kind training_curves --kind loss_against_experts --kind usage_over_epochs

dashboard: .venv/installed-dev  ## browse the quickstart's results in a web browser (runs it first where it has not run)
	test -d out/quickstart || $(MAKE) quickstart
	$(BIN)/smoe-ray dashboard out

gpu: .venv/installed  ## known answers and speed on a GPU; a table in benchmarks/results
	$(BIN)/python benchmarks/gpu.py

screenshots: .venv/installed-dev  ## pictures of the dashboard for README and docs: make screenshots OUT=results
	$(BIN)/python docs/screenshots.py $(or $(OUT),out)

test: .venv/installed-dev  ## all tests that take seconds
	$(BIN)/pytest --numprocesses 2 --dist loadfile

test-slow: .venv/installed-dev  ## the others
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile

test-all: test test-slow  ## both

check: .venv/installed-dev  ## lint, types, import contracts, documentation, advisories
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check.py
	$(BIN)/python .ci/advisories.py

format: .venv/installed-dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

images:  ## build the container images: make images REGISTRY=ghcr.io/team TAG=0.1.0 (docker, podman or buildah)
	@REGISTRY='$(REGISTRY)' TAG='$(TAG)' IMAGES='$(IMAGES)' VARIANT='$(VARIANT)' sh k8s/images/build.sh

sbom: .venv/installed-dev  ## bills of materials of the images (CycloneDX) in out/sbom
	$(BIN)/python k8s/images/sbom.py out/sbom

clean:  ## remove the environment and the quickstart's results
	rm -rf .venv out

.venv/bin/pip:
	$(PYTHON) -m venv .venv

# torch by name first: the version in the constraints file has a CPU build where one is offered.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP) torch
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dashboard,s3,gcs,k8s,export,dev]'
	touch $@
