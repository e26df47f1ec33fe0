# Everything runs in .venv, which these targets make themselves: nothing else is to be set up.
PYTHON ?= python3
BIN := .venv/bin
# A process a core, each with whole files; all must list the tests in the same order.
# Bytecode is kept, or every process would compile all modules anew.
PYTEST := PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
SHARED := --numprocesses auto --maxprocesses 8 --dist loadfile
# Seconds that a test of the longer suites may take; pyproject.toml has those of the default tests.
LONG := --timeout 1800
FUZZ_SECONDS ?= 600

.PHONY: demo study test test-slow test-slurm test-browser faults fuzz mutations matrix soak gpu \
    lint reference docs clean

.venv/runs: pyproject.toml  # what running needs; Python compiles the modules that are loaded
	@echo "Installing into .venv what running needs: up to 6 GB, most of it torch for GPUs."
	@echo "(The README says how to install torch for CPUs first, which is a fraction of that.)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile --editable .
	touch $@

# Chosen together, also where `runs` is there: by itself, running takes packages too new for the tests.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test]'
	touch .venv/runs $@

demo: .venv/runs  ## the main job on made-up scenes: demo/results.json, demo/demo.png
	PYTHONDONTWRITEBYTECODE= PATH="$(CURDIR)/$(BIN):$$PATH" sh workflows/demo/run.sh demo

study: .venv/runs  ## four encoders by six measures, two seeds: demo-study/study.md, study.html
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m workflows.study workflows/study/drawn.yaml --out demo-study --seeds 0 1 --leave-out 100%

test: .venv/installed  ## the default tests
	$(PYTEST) $(SHARED)

test-slow: .venv/installed  ## torchrun, wheel, pages: what takes tens of seconds each
	$(PYTEST) $(SHARED) $(LONG) -m slow

test-slurm: .venv/installed  ## Slurm as Debian has it, on one node of its own; root installs it
	dpkg -s slurm-wlm munge > /dev/null 2>&1 || \
	    { apt-get update -q && apt-get install -y -q --no-install-recommends slurm-wlm munge; }
	$(PYTEST) $(LONG) -m slurm

test-browser: .venv/installed  ## the pages of `inspect` in Debian's Chromium; root installs it
	dpkg -s chromium chromium-driver > /dev/null 2>&1 || \
	    { apt-get update -q && apt-get install -y -q --no-install-recommends chromium chromium-driver; }
	$(PYTEST) $(LONG) -m browser tests/browser

faults: .venv/installed  ## breaks things on purpose: a slice of it, or all by FAULTS=whole
	$(PYTEST) $(SHARED) $(LONG) -m faults tests/faults

fuzz: .venv/installed  ## tars, then images, guided by coverage, FUZZ_SECONDS (600) each; Linux alone
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	mkdir -p fuzz
	$(BIN)/python -m tests.faults.guided tars fuzz -max_total_time=$(FUZZ_SECONDS)
	$(BIN)/python -m tests.faults.guided images fuzz -max_total_time=$(FUZZ_SECONDS)

mutations: .venv/installed  ## wrong lines in the recipes' code, which tests must notice; of all STAGES
	$(BIN)/python -m tests.mutations $(STAGES)

matrix: .venv/installed  ## the default tests on each Python, with the oldest and newest dependencies
	$(BIN)/python -m pip install --quiet --editable '.[matrix]'
	$(BIN)/python -m nox $(if $(SESSIONS),--session $(SESSIONS))

soak: .venv/installed  ## extract and pretrain, killed every 20 to 60 s, for SOAK_MINUTES (60)
	PYTHONHASHSEED=0 $(BIN)/python -m tests.faults.soak

gpu: .venv/installed  ## whether a GPU does the work rightly, and how fast, in 7 minutes: gpu.json
	$(BIN)/python -m benchmarks.gpu --json gpu.json

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/repository/test_structure.py tests/repository/test_readability.py

reference: .venv/installed  ## docs/commands.md, docs/pipeline.svg and the stages' stub, from the code
	$(BIN)/python -m docs.command_reference
	$(BIN)/python -m docs.draw_pipeline

docs: .venv/installed  ## the documentation as pages: docs/_build/index.html
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

clean:
	rm -rf .venv .nox demo demo-study fuzz build docs/_build gpu.json *.egg-info
