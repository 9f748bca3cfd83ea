# Set-up, tests and the quickstart. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
comma  := ,
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
# The GPU build of vLLM where there is an NVIDIA GPU, else its CPU build; `make setup BUILD=cpu` decides by hand.
BUILD  ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
EXTRAS := $(BUILD),tasks,harness,smollm2,gemma,quant,gguf,recipes,tensorboard,trackio,wandb,ray,dev
# Test processes at once: one for each of two cores, and one for what they leave idle; some 5 GB each.
JOBS   ?= 3
# What `make install` brings beside training, separated by commas.
EXTRA  ?=
# The whole of it, and what training needs.
STAMP  := $(VENV)/.opd-$(BUILD)
LEAN   := $(VENV)/.opd-$(BUILD)-lean
# A folder of wheels that pip is configured with is searched by uv too; otherwise torch's CPU wheels come from PyTorch's index.
WHEELS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
INDEX  := $(if $(WHEELS),--find-links "$(WHEELS)",$(if $(filter cpu,$(BUILD)),--torch-backend cpu,))

# One file for every Python that there are wheels for; the CPU build's come from an index of their own, for one Python.
UNIVERSAL := $(if $(filter gpu,$(BUILD)),--universal --python-version 3.11,)
OVERRIDES := --overrides overrides.txt $(if $(filter cpu,$(BUILD)),--overrides overrides-cpu.txt,)

.DEFAULT_GOAL := help
.PHONY: help setup install quickstart test test-fast format lint types check bench faults readme pythons architectures docs models clean lock

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## a virtual environment with everything pinned (GPU build where there is a GPU)

install: $(LEAN) ## the same with nothing but what training needs; extras are added when they are asked for

# Compiled once and not in every process that is started: half of the seconds until `opd` begins, where nothing is kept.
INSTALL = @echo "setting up $(VENV) ($(BUILD) build, $(1)); the first time takes some minutes"; \
  { test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } && \
  { test -x $(UV) || $(BIN)/python -m pip install --quiet uv; } && \
  $(UV) pip install --python $(BIN)/python --compile-bytecode $(INDEX) --constraints constraints-$(BUILD).txt \
    $(OVERRIDES) -e ".[$(2)]"

$(STAMP): pyproject.toml constraints-$(BUILD).txt
	$(call INSTALL,everything,$(EXTRAS))
	@touch $@ $(LEAN)

$(LEAN): pyproject.toml constraints-$(BUILD).txt
	$(call INSTALL,training,$(BUILD)$(addprefix $(comma),$(EXTRA)))
	@touch $@

quickstart: install ## train, evaluate and export a small student, then show what it learned
	$(BIN)/opd train conf=quickstart
	$(BIN)/opd export
	$(BIN)/opd eval
	@echo "next:  $(BIN)/opd chat --compare    $(BIN)/opd report    $(BIN)/opd init"

test: setup lint types ## everything that CI runs: format, lint, types, layers and all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-fast: setup ## the tests that need no engine and no real model
	$(BIN)/python -m pytest -m "not slow"

format: setup ## reformat the code
	$(BIN)/ruff format opd recipes tests docs
	$(BIN)/ruff check --fix opd recipes tests docs

lint: setup ## formatting, lint rules, import layers and the Dockerfile
	$(BIN)/ruff format --check opd recipes tests docs
	$(BIN)/ruff check opd recipes tests docs
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

types: setup ## the type checker
	$(BIN)/mypy

check: lint types test-fast ## what to run before a commit

bench: setup ## memory and speed against the naive version and TRL, in one run
	$(UV) pip install --quiet --python $(BIN)/python $(INDEX) --constraints constraints-$(BUILD).txt $(OVERRIDES) -e ".[bench]"
	$(BIN)/python -m tests.bench

faults: setup ## do harm to tiny runs (kill their processes, damage their checkpoints), and see what holds
	$(BIN)/python -m tests.faults kills
	$(BIN)/python -m tests.faults ranks
	$(BIN)/python -m tests.faults apart
	$(BIN)/python -m tests.faults fleet
	$(BIN)/python -m tests.faults checkpoints
	$(BIN)/python -m tests.faults disk
	$(BIN)/python -m tests.faults signals
	$(BIN)/python -m tests.faults servers
	$(BIN)/python -m tests.faults inputs
	$(BIN)/python -m tests.faults memory
	$(BIN)/python -m tests.faults fuzz

readme: setup ## measure every figure of the README again, and write them into it
	$(BIN)/python -m tests.readme

pythons: setup ## the wheel on other versions of Python, as far as uv finds them
	$(BIN)/python -m tests.pythons 3.12 3.13

architectures: setup ## try every architecture with both engines, and write the table in docs/architectures.md
	$(BIN)/python -m tests.architectures

docs: setup ## make the pages that are made from the code: settings, hardware
	$(BIN)/python -m tests.pages

models: setup ## make the models that ship again; on another processor they are others, and so are all figures
	$(BIN)/python -m opd.commands.ship

lock: setup ## resolve the pinned versions anew for this build
	$(UV) pip compile pyproject.toml $(foreach e,$(subst $(comma), ,$(EXTRAS)),--extra $(e)) $(INDEX) $(OVERRIDES) $(UNIVERSAL) \
	  --no-annotate --no-header --quiet -o - | sed 's/^torch==\([0-9.]*\)+cpu/torch==\1/' > constraints-$(BUILD).txt

clean: ## remove the virtual environment and caches (runs stay)
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
